"""What ``macllm finetune`` says of its data: every line that cannot be used, figures, and how a row is learned."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.cli.output import print_json, print_table, tell
from macllm.cli.progress import Progress
from macllm.errors import InputError

if TYPE_CHECKING:
    from macllm.tokenizer import Tokenizer
    from macllm.tune.dataset import DataSet, Statistics
    from macllm.tune.examples import Example
    from macllm.tune.rows import Problem
    from macllm.tune.setup import Setup

SHOWN_PROBLEMS = 50
_WORTH_A_BAR = 4_000_000  # bytes
_OPEN, _CLOSE = "⟦", "⟧"  # around what is learned, where there are no colours
_LEARNED, _MASKED = "bold green", "bright_black"


def reading(data: Path) -> Progress:
    """A bar for the rows of ``data``: small files are read before one could look at it."""
    return _Reading(f"reading {data}", passing=True)


class _Reading(Progress):
    def update(self, done: int, total: int | None = None) -> None:
        if total is not None and total > _WORTH_A_BAR:
            super().update(done, total)


def refuse(problems: "Sequence[Problem]", place: str) -> None:
    """Tells every line that cannot be used, the first 50 of them; raises InputError."""
    for problem in problems[:SHOWN_PROBLEMS]:
        tell(str(problem))
    if len(problems) > SHOWN_PROBLEMS:
        tell(f"... and {len(problems) - SHOWN_PROBLEMS:,} more")
    lines = "1 line" if len(problems) == 1 else f"{len(problems):,} lines"
    raise InputError(f"{place}: {lines} cannot be learned from; correct or remove them, nothing was trained")


def show_data(setup: "Setup", *, as_json: bool) -> None:
    """Prints figures of each part of the data, and the first example: what of it is learned."""
    data = setup.data
    first = data.train[: 2 if data.pairs else 1]
    if as_json:
        print_json(
            {
                **data_json(setup),
                "example": [_example_json(setup.tokenizer, example) for example in first],
            }
        )
        return
    parts = _parts(data)
    rows = [_row(name, stats, 2 if data.pairs else 1) for name, stats in parts]
    print_table(("", "rows", "tokens", "learned", "longest", "at", "cut"), rows, right=[1, 2, 3, 4, 6])
    if data.set_aside:
        print("The rows to validate with were taken from the file to train on.")
    if (packed := packing_words(setup)) is not None:
        print(packed)
    for number, example in enumerate(first):
        name = ("Preferred: ", "Rejected: ")[number] if data.pairs else ""
        print(
            f"\n{name}{example.place}, {len(example):,} tokens, {example.supervised:,} of them learned"
            f"{', cut' if example.truncated else ''}:\n"
        )
        _print_example(setup.tokenizer, example)


def data_json(setup: "Setup") -> dict[str, Any]:
    """The figures of the data."""
    found: dict[str, Any] = {
        name: {
            "rows": stats.rows // (2 if setup.data.pairs else 1),
            "tokens": stats.tokens,
            "supervised_tokens": stats.supervised,
            "longest": stats.longest,
            "longest_at": stats.longest_at,
            "truncated": stats.truncated,
        }
        for name, stats in _parts(setup.data)
    }
    packed = _packed(setup)
    return {
        **found,
        "set_aside": setup.data.set_aside,
        "packed_rows": packed[0] if packed is not None else None,
        "packed_fill": packed[1] if packed is not None else None,
    }


def packing_words(setup: "Setup") -> str | None:
    """How full the rows are where several examples share one; None where none do."""
    packed = _packed(setup)
    if packed is None:
        return None
    count, fill = packed
    rows = "row" if count == 1 else "rows"
    return f"Packed: {count:,} {rows} of {setup.batching.max_seq_length:,} tokens, {fill:.1%} full."


def _packed(setup: "Setup") -> tuple[int, float] | None:
    from macllm.tune.packing import fill, first_fit_decreasing

    if not setup.batching.pack:
        return None
    lengths = [len(example) for example in setup.data.train]
    rows = first_fit_decreasing(lengths, setup.batching.max_seq_length)
    return len(rows), fill(lengths, rows, setup.batching.max_seq_length)


def _parts(data: "DataSet") -> "list[tuple[str, Statistics]]":
    from macllm.tune.dataset import statistics

    parts = (("train", data.train), ("valid", data.valid), ("test", data.test))
    return [(name, statistics(examples)) for name, examples in parts if examples]


def _row(name: str, stats: "Statistics", together: int) -> tuple[str, ...]:
    return (
        name,
        f"{stats.rows // together:,}",
        f"{stats.tokens:,}",
        f"{stats.supervised_share:.1%}",
        f"{stats.longest:,}",
        stats.longest_at,
        f"{stats.truncated:,}",
    )


def _example_json(tokenizer: "Tokenizer", example: "Example") -> dict[str, Any]:
    from macllm.tune.examples import pieces

    parts = [{"text": text, "learned": learned} for text, learned in pieces(tokenizer, example)]
    return {"at": example.place, "tokens": len(example), "pieces": parts}


def _print_example(tokenizer: "Tokenizer", example: "Example") -> None:
    from macllm.tune.examples import pieces

    parts = [(_printable(text), learned) for text, learned in pieces(tokenizer, example)]
    if not sys.stdout.isatty():
        print("".join(f"{_OPEN}{text}{_CLOSE}" if learned else text for text, learned in parts))
        print(f"\nWhat stands between {_OPEN} and {_CLOSE} is learned.")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text.assemble(*((text, _LEARNED if learned else _MASKED) for text, learned in parts)))
    console.print()
    console.print(
        Text.assemble(("What is green", _LEARNED), " is learned, ", ("the rest", _MASKED), " is read.")
    )


def _printable(text: str) -> str:
    """Without what would command the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
