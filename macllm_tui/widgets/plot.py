"""A plot for a terminal: curves in braille dots, markers for what is measured now and then, axes with ticks.

Own code and no library: the ones there are need numpy, or take a second for 100,000 points, or stop at a NaN.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import RenderResult
from textual.geometry import Size
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from macllm_tui.widgets.series import Bucket, Series

LINE = ""  # mark of a series that is drawn as a line; any other mark is drawn at each point
BEST = "★"
_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bit of dot [row][column] in a braille cell
_MIN_TICK_ROWS, _MIN_TICK_COLUMNS = 3, 12


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


class Plot(Widget):
    """Curves over one x axis. Call :meth:`draw` after points came; sizes and ranges follow by themselves."""

    DEFAULT_CSS = """
    Plot { height: 12; min-height: 5; color: $text; }
    Plot > .plot--axis { color: $text-muted; }
    Plot > .plot--curve-1 { color: $primary; }
    Plot > .plot--curve-2 { color: $warning; text-style: bold; }
    Plot > .plot--curve-3 { color: $success; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "plot--axis",
        "plot--curve-1",
        "plot--curve-2",
        "plot--curve-3",
    }
    logarithmic: reactive[bool] = reactive(False)

    def __init__(self, curves: Sequence[Curve], *, empty: str = "", x_name: str = "step") -> None:
        super().__init__()
        self._curves = tuple(curves)
        self._empty, self._x_name = empty, x_name
        self._lines: list[Strip] | None = None
        self._drawn_at = Size(0, 0)

    def show(self, curves: Sequence[Curve]) -> None:
        """Other curves from now on."""
        self._curves = tuple(curves)
        self.draw()

    def draw(self) -> None:
        """Draws again what the series hold now."""
        self._lines = None
        self.refresh()

    def watch_logarithmic(self) -> None:
        self.draw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._lines = None

    def render(self) -> RenderResult:
        return ""  # lines are drawn one by one below

    def render_line(self, y: int) -> Strip:
        if self._lines is None or self._drawn_at != self.size:  # a line is asked for before a resize is told
            self._lines, self._drawn_at = self._drawn(self.size.width, self.size.height), self.size
        if y < len(self._lines):
            return self._lines[y]
        return Strip.blank(self.size.width, self.rich_style)

    @property
    def text(self) -> str:
        """What it shows, without colours."""
        return "\n".join(self.render_line(y).text.rstrip() for y in range(self.size.height))

    def _styles(self) -> list[Style]:
        """By curve; the last is the axis, so that -1 finds it."""
        return [
            self.get_component_rich_style(f"plot--{part}")
            for part in ("curve-1", "curve-2", "curve-3", "axis")
        ]

    def _drawn(self, width: int, height: int) -> list[Strip]:
        base, styles = self.rich_style, [self.rich_style + style for style in self._styles()]
        lines = [self._legend(styles)]
        curves = [curve for curve in self._curves if curve.series.length]
        if not curves:
            lines.append([Segment(self._empty, styles[-1])])
        elif height >= 5 and width >= 20:
            lines += self._plotted(curves, width, height - 1, styles)
        return [Strip(line).adjust_cell_length(width, base) for line in lines]

    def _legend(self, styles: Sequence[Style]) -> list[Segment]:
        line: list[Segment] = []
        for index, curve in enumerate(self._curves):
            series = curve.series
            value = f" {series.last:.4g}" if series.last is not None else ""
            lost = f" ({series.lost} not a number)" if series.lost else ""
            line += [
                Segment(curve.sign, styles[index]),
                Segment(f" {series.name}{value}{lost}   ", styles[-1]),
            ]
            if curve.best and (y_range := series.y_range):
                line += [Segment(BEST, styles[index]), Segment(f" best {y_range[0]:.4g}   ", styles[-1])]
        return line

    def _plotted(
        self, curves: Sequence[Curve], width: int, height: int, styles: Sequence[Style]
    ) -> list[list[Segment]]:
        rows = height - 2  # the axis and its labels
        x_low, x_high = _span([curve.series.x_range for curve in curves])
        y_low, y_high = _span([curve.series.y_range for curve in curves])
        log = self.logarithmic and y_low > 0
        if y_low == y_high:  # a flat line stands in the middle
            y_low, y_high = (y_low / 1.1, y_high * 1.1) if log else (y_low - 0.5, y_high + 0.5)
        most = max(2, rows // _MIN_TICK_ROWS)
        y_ticks = (log_ticks if log else ticks)(y_low, y_high, most)
        margin = max(len(label(value)) for value in y_ticks)
        columns = max(1, width - margin - 2)
        canvas = Canvas(columns, rows)
        x_scale, y_scale = Scale(x_low, x_high, columns * 2), Scale(y_low, y_high, rows * 4, log)
        for curve in curves:
            _trace(canvas, curve, self._curves.index(curve), x_scale, y_scale)
        at = {rows - 1 - y_scale(value) // 4: label(value) for value in y_ticks}
        axis = styles[-1]
        lines = []
        for row in range(rows):
            edge = "┤" if row in at else "│"
            start = [Segment(f"{at.get(row, ''):>{margin}} {edge}", axis)]
            runs = groupby(canvas.cells(row), key=itemgetter(1))
            lines.append(
                start + [Segment("".join(sign for sign, _ in run), styles[owner]) for owner, run in runs]
            )
        below = self._x_axis(x_low, x_high, columns, x_scale)
        return lines + [[Segment(" " * (margin + 1) + line, axis)] for line in below]

    def _x_axis(self, low: float, high: float, columns: int, scale: Scale) -> tuple[str, str]:
        edge, labels = ["─"] * columns, [" "] * columns
        free = 0
        for value in ticks(low, high, max(2, columns // _MIN_TICK_COLUMNS)):
            column, text = scale(value) // 2, label(value)
            start = min(max(0, column - len(text) // 2), columns - len(text))
            edge[column] = "┴"
            if start >= free:
                labels[start : start + len(text)] = text
                free = start + len(text) + 1
        if free + len(self._x_name) <= columns:
            labels[columns - len(self._x_name) :] = self._x_name
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
