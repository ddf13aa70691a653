"""A plot as a widget: the curves that :mod:`macllm.plotting` draws, in the colours of the theme."""

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import RenderResult
from textual.geometry import Size
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from macllm.plotting.braille import Curve, drawn


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
        lines = drawn(
            self._curves,
            width,
            height,
            logarithmic=self.logarithmic,
            empty=self._empty,
            x_name=self._x_name,
        )
        strips = [Strip(Segment(text, styles[owner]) for text, owner in line) for line in lines]
        return [strip.adjust_cell_length(width, base) for strip in strips]
