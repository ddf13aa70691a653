"""What commands write: JSON and tables to stdout, remarks to stderr."""

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Prints ``value`` as indented JSON; text stays readable, not escaped."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def tell(text: str) -> None:
    """Prints a remark on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()
) -> None:
    """Prints a table: drawn by rich on a terminal, aligned plain text into a pipe or file.

    ``right`` names the columns, from 0, whose cells are set flush right.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(headers, cells, right)
        return
    widths = [max(len(row[column]) for row in [list(headers), *cells]) for column in range(len(headers))]
    for row in [headers, *cells]:
        words = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(words).rstrip())


def _print_rich(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, header in enumerate(headers):
        table.add_column(header, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a name with [brackets] is not markup
    Console().print(table)
