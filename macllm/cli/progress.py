"""Progress of long work on stderr: a bar with rate and ETA on a terminal, a line each 10 % elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from macllm.units import duration, size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_QUIET_S = 1.0  # no line before that and none sooner after another: what is done at once needs none
_LINE_S = 10.0  # between two lines of work with an unknown total


class Progress:
    """Shows how far one piece of work is. Use as a context manager and call :meth:`update`.

    ``unit`` is ``bytes`` (shown as MB and GB) or the plural noun of what is counted. What is done at the
    first update (a resumed download) does not count in the rate. A ``passing`` bar is gone from the terminal
    when the work is done: what it told is of no use any more.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        unit: str = "bytes",
        passing: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._unit, self._clock = label, total, unit, clock
        self._passing = passing
        self._first: tuple[float, int] | None = None  # time and count of the first update
        self._shown = -1  # tenths, or for an unknown total the count, of the last line
        self._shown_at = clock()
        self._done = 0
        self._bar: RichProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None = None) -> None:
        """``done`` of ``total`` units are finished; ``total`` is only needed when it was not known before."""
        if total is not None:
            self._total = total
        now = self._clock()
        if self._first is None:
            self._first = (now, done)
        self._done = done
        if sys.stderr.isatty():
            self._show_bar()
        else:
            self._show_line(now)

    def _show_bar(self) -> None:
        if self._bar is None:
            self._bar = _rich_bar(self._unit, self._passing)
            self._bar.start()
            self._bar.add_task(self._label, total=self._total, completed=self._done)
        self._bar.update(self._bar.task_ids[0], total=self._total, completed=self._done)

    def _show_line(self, now: float) -> None:
        if self._total:
            tenth = min(10, self._done * 10 // self._total)
            last = tenth == 10 and self._shown >= 0  # whoever saw it begin sees it end
            if tenth <= self._shown or (now - self._shown_at < _QUIET_S and not last):
                return
            self._shown = tenth
            head = f"{self._label}: {tenth * 10} % of {_amount(self._total, self._unit)}"
        else:
            if now - self._shown_at < (_LINE_S if self._shown >= 0 else _QUIET_S):
                return
            self._shown = self._done
            head = f"{self._label}: {_amount(self._done, self._unit)}"
        self._shown_at = now
        print(head + self._pace(now), file=sys.stderr, flush=True)

    def _pace(self, now: float) -> str:
        """``, 12.3 MB/s, 8 s left`` once there is something to reckon with."""
        assert self._first is not None
        start, before = self._first
        if now <= start or self._done <= before:
            return ""
        rate = (self._done - before) / (now - start)
        text = f", {_amount(rate, self._unit)}/s"
        if self._total and self._done < self._total:
            text += f", {duration((self._total - self._done) / rate)} left"
        return text


def _rich_bar(unit: str, passing: bool) -> "RichProgress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{_amount(task.speed, unit)}/s" if task.speed else "")

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        count,
        Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=passing)


def _amount(count: float, unit: str) -> str:
    return size(count) if unit == "bytes" else f"{count:,.{1 if count < 10 and count % 1 else 0}f} {unit}"
