"""``metrics.jsonl``: a row for every step of a run, also of one that was stopped and went on."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from macllm.errors import MacllmError

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Row:
    """After ``step``. Losses are means over supervised tokens in nats; None where there is no such figure."""

    step: int
    epoch: float
    loss: float | None
    val_loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens: int
    supervised_tokens: int
    tokens_per_s: float | None
    peak_memory_bytes: int
    wall_s: float


class MetricsFile:
    """The rows of a folder. ``begin`` before the first is written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS

    def begin(self, step: int) -> None:
        """Keeps the rows up to ``step``; raises MacllmError where the folder cannot be written in."""
        kept = [line for number, line in _lines(self.path) if number <= step] if step else []
        partial = self.path.with_name(f".partial-{METRICS}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def add(self, row: Row, **more: float) -> None:
        """Writes a row, at once; ``more`` are an objective's own figures."""
        told = {name: _plain(value) for name, value in {**asdict(row), **more}.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
        except OSError as error:
            raise _unwritable(self.path, error) from None


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows in ``folder``; none where there is no file."""
    return [json.loads(line) for _, line in _lines(folder / METRICS)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Whole lines with their steps: a run that was killed may have left half a one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            yield int(json.loads(line)["step"]), line
        except (ValueError, KeyError, TypeError):
            continue


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unwritable(path: Path, error: OSError) -> MacllmError:
    return MacllmError(f"{path}: it cannot be written ({error.strerror}); make room, or name another folder")
