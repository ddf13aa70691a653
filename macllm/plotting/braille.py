"""Curves in braille dots for a terminal, markers for what is measured now and then, axes with ticks; pure text.

Own code and no library: the ones there are need numpy, or take a second for 100,000 points, or stop at a NaN.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from macllm.plotting.series import Bucket, Series

LINE = ""  # mark of a series that is drawn as a line; any other mark is drawn at each point
BEST = "★"
_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bit of dot [row][column] in a braille cell
_MIN_TICK_ROWS, _MIN_TICK_COLUMNS = 3, 12
AXIS = -1  # whose text belongs to no curve

Line: TypeAlias = list[
    tuple[str, int]
]  # pieces of text from the left, each with the number of its curve, or AXIS


@dataclass(frozen=True)
class Curve:
    """A series and how it is drawn: as a LINE, or with a mark at each point. ``best`` marks its lowest point."""

    series: Series
    mark: str = LINE
    best: bool = False

    @property
    def sign(self) -> str:
        """What stands for it in the legend."""
        return self.mark or "⠤⠒⠤"


@dataclass(frozen=True)
class Scale:
    """Maps values to dots, 0 at the low end. ``log`` only for values above zero."""

    low: float
    high: float
    dots: int
    log: bool = False

    def __call__(self, value: float) -> int:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        width = high - low
        share = (value - low) / width if 0 < width < math.inf else 0.5
        return round(min(1.0, max(0.0, share)) * (self.dots - 1))


class Canvas:
    """Cells of 2 x 4 braille dots, each coloured by the curve that came last. Dot (0, 0) is bottom left."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._bits = [[0] * columns for _ in range(rows)]
        self._marks: dict[tuple[int, int], str] = {}
        self._owner = [[-1] * columns for _ in range(rows)]

    def dot(self, x: int, y: int, owner: int) -> None:
        row, column = self.rows - 1 - y // 4, x // 2
        self._bits[row][column] |= _DOTS[3 - y % 4][x % 2]
        self._owner[row][column] = owner

    def mark(self, x: int, y: int, sign: str, owner: int) -> None:
        """A character over the cell of this dot."""
        row, column = self.rows - 1 - y // 4, x // 2
        self._marks[row, column] = sign
        self._owner[row][column] = owner

    def line(self, x: int, y: int, to_x: int, to_y: int, owner: int) -> None:
        """Both ends included."""
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(steps + 1):
            self.dot(x + round((to_x - x) * step / steps), y + round((to_y - y) * step / steps), owner)

    def cells(self, row: int) -> Iterator[tuple[str, int]]:
        """Characters of a row from the left, each with its curve; -1 for none."""
        for column in range(self.columns):
            bits = self._bits[row][column]
            sign = self._marks.get((row, column)) or (chr(_BLANK + bits) if bits else " ")
            yield sign, self._owner[row][column]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Up to ``most`` round numbers (1, 2 or 5 times a power of ten) within the range."""
    least = (high - low) / max(most, 1)
    if most < 1 or not 1e-300 < least < math.inf:
        return [low]
    step = 10.0 ** math.floor(math.log10(least))
    while True:
        for factor in (1, 2, 5):
            first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
            if last - first + 1 <= most:
                return [count * step * factor for count in range(first, last + 1)] or [low]
        step *= 10


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within a range of values above zero: 1, 2 and 5 of each power of ten, thinned out."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) <= most:
            return found if len(found) > 1 else ticks(low, high, most)
    return found[:: math.ceil(len(found) / max(1, most))]


def label(value: float) -> str:
    """A number as short as an axis wants it: 1.25, 12k."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}"


def drawn(
    curves: Sequence[Curve],
    width: int,
    height: int,
    *,
    logarithmic: bool = False,
    empty: str = "",
    x_name: str = "step",
) -> list[Line]:
    """A legend, then the curves over one x axis, in up to ``height`` lines of ``width`` cells; never more.

    ``empty`` stands there while no curve has a point. Legends may be wider: whoever shows them cuts them.
    """
    lines = [_legend(curves)]
    known = [(index, curve) for index, curve in enumerate(curves) if curve.series.length]
    if not known:
        lines.append([(empty, AXIS)])
    elif height >= 5 and width >= 20:
        lines += _plotted(known, width, height - 1, logarithmic, x_name)
    return lines


def _legend(curves: Sequence[Curve]) -> Line:
    line: Line = []
    for index, curve in enumerate(curves):
        series = curve.series
        value = f" {series.last:.4g}" if series.last is not None else ""
        lost = f" ({series.lost} not a number)" if series.lost else ""
        line += [(curve.sign, index), (f" {series.name}{value}{lost}   ", AXIS)]
        if curve.best and (y_range := series.y_range):
            line += [(BEST, index), (f" best {y_range[0]:.4g}   ", AXIS)]
    return line


def _plotted(
    curves: Sequence[tuple[int, Curve]], width: int, height: int, logarithmic: bool, x_name: str
) -> list[Line]:
    rows = height - 2  # the axis and its labels
    x_low, x_high = _span([curve.series.x_range for _, curve in curves])
    y_low, y_high = _span([curve.series.y_range for _, curve in curves])
    log = logarithmic and y_low > 0
    if y_low == y_high:  # a flat line stands in the middle
        y_low, y_high = (y_low / 1.1, y_high * 1.1) if log else (y_low - 0.5, y_high + 0.5)
    most = max(2, rows // _MIN_TICK_ROWS)
    y_ticks = (log_ticks if log else ticks)(y_low, y_high, most)
    margin = max(len(label(value)) for value in y_ticks)
    columns = max(1, width - margin - 2)
    canvas = Canvas(columns, rows)
    x_scale, y_scale = Scale(x_low, x_high, columns * 2), Scale(y_low, y_high, rows * 4, log)
    for index, curve in curves:
        _trace(canvas, curve, index, x_scale, y_scale)
    at = {rows - 1 - y_scale(value) // 4: label(value) for value in y_ticks}
    lines: list[Line] = []
    for row in range(rows):
        edge = "┤" if row in at else "│"
        runs = groupby(canvas.cells(row), key=itemgetter(1))
        found = [("".join(sign for sign, _ in run), owner) for owner, run in runs]
        lines.append([(f"{at.get(row, ''):>{margin}} {edge}", AXIS), *found])
    below = _x_axis(x_low, x_high, columns, x_scale, x_name)
    return lines + [[(" " * (margin + 1) + line, AXIS)] for line in below]


def _x_axis(low: float, high: float, columns: int, scale: Scale, x_name: str) -> tuple[str, str]:
    edge, labels = ["─"] * columns, [" "] * columns
    free = 0
    for value in ticks(low, high, max(2, columns // _MIN_TICK_COLUMNS)):
        column, text = scale(value) // 2, label(value)
        start = min(max(0, column - len(text) // 2), columns - len(text))
        edge[column] = "┴"
        if start >= free:
            labels[start : start + len(text)] = text
            free = start + len(text) + 1
    if free + len(x_name) <= columns:
        labels[columns - len(x_name) :] = x_name
    return "└" + "".join(edge), " " + "".join(labels)


def _span(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float]:
    known = [each for each in ranges if each is not None]
    return min(low for low, _ in known), max(high for _, high in known)


def _trace(canvas: Canvas, curve: Curve, owner: int, x_scale: Scale, y_scale: Scale) -> None:
    """Draws one curve; a line has a gap where values were lost."""
    for part in curve.series.parts:
        before: Bucket | None = None
        for bucket in part:
            x = x_scale((bucket.x_first + bucket.x_last) / 2)
            if curve.mark:
                canvas.mark(x_scale(bucket.x_last), y_scale(bucket.last), curve.mark, owner)
                continue
            canvas.line(x, y_scale(bucket.low), x, y_scale(bucket.high), owner)
            if before is not None:
                start = x_scale((before.x_first + before.x_last) / 2)
                canvas.line(start, y_scale(before.last), x, y_scale(bucket.first), owner)
            before = bucket
    if curve.best:
        lowest = min(curve.series, key=lambda bucket: bucket.low)
        canvas.mark(x_scale(lowest.x_last), y_scale(lowest.low), BEST, owner)
