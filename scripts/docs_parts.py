"""What the generated pages of docs/ are put together from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- written by scripts/docs.py -->\n"


def real_spec(name: str) -> Any:
    from macllm.families import spec_from_config

    return spec_from_config(json.loads((ROOT / "tests" / "configs" / f"{name}.json").read_text("utf-8")))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], plain: Sequence[int] = (0,)) -> str:
    """A table whose columns are flush right, but for ``plain`` ones."""
    rule = ["---" if column in plain else "--:" for column in range(len(heads))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *rows))


def code(*texts: str) -> str:
    return ", ".join(f"`{text}`" for text in texts if text)
