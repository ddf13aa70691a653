"""What a benchmark's row holds, and how rows become a table and JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

HEADERS = ("figure", "macllm", "compared with", "theirs", "ratio", "target", "")
RIGHT = (1, 3, 4)

Judged = Literal["ratio", "value"]


@dataclass(frozen=True)
class Target:
    """What a row is held against: its ratio (macllm / theirs) or macllm's value, from below or above."""

    judged: Judged
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        sign, bound = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        return f"{sign} {bound:g}{' x' if self.judged == 'ratio' else ''}"

    def met(self, number: float) -> bool:
        if self.at_least is not None:
            return number >= self.at_least
        return self.at_most is None or number <= self.at_most


@dataclass(frozen=True)
class Row:
    """One figure of macllm beside another program's. ``why`` stands where a value could not be had."""

    key: str
    figure: str
    unit: str
    ours: tuple[float, ...]  # all samples
    peer: str = ""
    theirs: tuple[float, ...] = ()
    target: Target | None = None
    why: str = ""  # no samples of theirs: not installed, died with exit code -11

    @property
    def value(self) -> float | None:
        return statistics.median(self.ours) if self.ours else None

    @property
    def peer_value(self) -> float | None:
        return statistics.median(self.theirs) if self.theirs else None

    @property
    def ratio(self) -> float | None:
        """The median of ours over theirs, pair by pair where they were taken in turn: it cancels slow drift."""
        if not self.ours or not self.theirs:
            return None
        if len(self.ours) == len(self.theirs):
            return statistics.median(a / b if b else 0.0 for a, b in zip(self.ours, self.theirs, strict=True))
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def met(self) -> bool | None:
        """None: information only, or not measured."""
        if self.target is None:
            return None
        judged = self.ratio if self.target.judged == "ratio" else self.value
        return None if judged is None else self.target.met(judged)

    def as_dict(self) -> dict[str, Any]:
        """The row with what follows from it, JSON-ready."""
        values = asdict(self) | {"target": str(self.target) if self.target is not None else None}
        return values | {
            "value": self.value,
            "peer_value": self.peer_value,
            "ratio": self.ratio,
            "met": self.met,
        }


@dataclass(frozen=True)
class Report:
    """All rows of one run and what they were taken on."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: Sequence[Row] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "settings": self.settings,
            "rows": [row.as_dict() for row in self.rows],
        }

    def table(self) -> list[tuple[str, ...]]:
        """A line of cells a row, under ``HEADERS``."""
        return [_cells(row) for row in self.rows]


def _cells(row: Row) -> tuple[str, ...]:
    theirs = _number(row.peer_value, row.unit) if row.theirs or not row.peer else row.why
    verdict = {True: "met", False: "not met", None: "information" if row.target is None else "not measured"}
    return (
        row.figure,
        _number(row.value, row.unit) if row.ours or not row.why else row.why,
        row.peer,
        theirs,
        f"{row.ratio:.2f} x" if row.ratio is not None else "",
        str(row.target) if row.target is not None else "",
        verdict[row.met],
    )


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f} {unit}".rstrip()
