"""What a download tells its caller: frozen events, at most ten a second, and the meter that makes them."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Planned:
    """What is going to be fetched: files and bytes of all, and how many bytes are on this disk already."""

    source: str
    files: int
    total: int
    present: int


@dataclass(frozen=True)
class Progress:
    """Bytes of the whole download that are here; ``file`` is the one in transfer.

    ``speed_bps`` is bytes a second over the last seconds, ``eta_s`` the seconds left at that speed;
    both are None until there is something to measure.
    """

    file: str
    done: int
    total: int
    speed_bps: float | None
    eta_s: float | None


@dataclass(frozen=True)
class Checking:
    """A file is read once more on this machine: hashed after a resume, or unpacked."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class Retrying:
    """The connection broke and is made again at the byte reached, after ``wait_s`` seconds."""

    file: str
    reason: str
    wait_s: float


Event: TypeAlias = Planned | Progress | Checking | Retrying
Report: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The report of a caller who does not want to know."""


class Meter:
    """Counts the bytes of one download and reports them, with speed and time left."""

    WINDOW_S = 5.0  # long enough to be steady, short enough to follow a changing network

    def __init__(
        self,
        report: Report,
        total: int,
        *,
        present: int = 0,
        interval_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = report
        self._total = total
        self._done = present
        self._interval_s = interval_s
        self._clock = clock
        self._file = ""
        self._samples: deque[tuple[float, int]] = deque([(clock(), present)])
        self._reported_at = float("-inf")

    def expect(self, count: int) -> None:
        """The size of a file became known that the total did not contain."""
        self._total += count

    def start(self, file: str) -> None:
        """The bytes that follow belong to ``file``."""
        self._file = file
        self._emit(force=True)

    def add(self, count: int) -> None:
        """``count`` bytes arrived; negative when bytes had to be thrown away."""
        self._done += count
        if count < 0:
            # a fall would read as a negative speed
            self._samples = deque([(self._clock(), self._done)])
        self._emit()

    def finish(self) -> None:
        """Reports the last state whatever the interval."""
        self._emit(force=True)

    def _emit(self, *, force: bool = False) -> None:
        now = self._clock()
        if not force and now - self._reported_at < self._interval_s:
            return
        self._reported_at = now
        speed = self._speed(now)
        left = max(self._total - self._done, 0)
        eta = left / speed if speed else None
        self.report(Progress(self._file, self._done, self._total, speed, eta))

    def _speed(self, now: float) -> float | None:
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and now - self._samples[0][0] > self.WINDOW_S:
            self._samples.popleft()
        then, done = self._samples[0]
        return (self._done - done) / (now - then) if now > then and self._done > done else None
