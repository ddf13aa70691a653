"""A growing curve in bounded memory: its points gathered in buckets that keep every peak and every dip."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

BUCKETS = 1024  # at most; then two neighbours become one. A wide screen draws 400 columns of dots.


@dataclass
class Bucket:
    """Neighbouring points: where they lie, their lowest and highest value, the first and the last of them."""

    x_first: float
    x_last: float
    low: float
    high: float
    first: float
    last: float
    count: int = 1

    def take(self, later: "Bucket") -> None:
        """Grows by the bucket after it."""
        self.x_last, self.last = later.x_last, later.last
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        self.count += later.count


class Series:
    """Points in the order of their x. What is not a finite number is counted, and leaves a gap in the curve."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.length = 0  # finite points
        self.lost = 0  # points that were NaN or infinite
        self.last: float | None = None
        self._parts: list[list[Bucket]] = [[]]  # between the gaps
        self._per_bucket = 1

    def __iter__(self) -> Iterator[Bucket]:
        for part in self._parts:
            yield from part

    @property
    def parts(self) -> tuple[tuple[Bucket, ...], ...]:
        """The stretches of the curve between gaps."""
        return tuple(tuple(part) for part in self._parts if part)

    @property
    def x_range(self) -> tuple[float, float] | None:
        parts = [part for part in self._parts if part]
        return (parts[0][0].x_first, parts[-1][-1].x_last) if parts else None

    @property
    def y_range(self) -> tuple[float, float] | None:
        if not self.length:
            return None
        return min(bucket.low for bucket in self), max(bucket.high for bucket in self)

    def append(self, x: float, y: float) -> None:
        """One more point; its x is not below the last one's."""
        if not math.isfinite(y) or not math.isfinite(x):
            self.lost += 1
            if self._parts[-1]:
                self._parts.append([])
            return
        self.length += 1
        self.last = y
        point, part = Bucket(x, x, y, y, y, y), self._parts[-1]
        if part and part[-1].count < self._per_bucket:
            part[-1].take(point)
            return
        part.append(point)
        if sum(map(len, self._parts)) > BUCKETS:
            self._halve()

    def cut(self, x: float) -> None:
        """Forgets what lies beyond ``x``: a run that is resumed goes on from there."""
        self._parts = [[bucket for bucket in part if bucket.x_first <= x] for part in self._parts]
        self._parts = [part for part in self._parts if part] or [[]]
        self.length = sum(bucket.count for bucket in self)
        self.last = self._parts[-1][-1].last if self._parts[-1] else None

    def _halve(self) -> None:
        self._per_bucket *= 2
        for part in self._parts:
            halved: list[Bucket] = []
            for bucket in part:
                if halved and halved[-1].count + bucket.count <= self._per_bucket:
                    halved[-1].take(bucket)
                else:
                    halved.append(bucket)
            part[:] = halved
        if len(self._parts) > BUCKETS // 4:  # gaps everywhere: they are worth no more memory than points
            self._parts = [[bucket for part in self._parts for bucket in part]]
