"""A list of models, a line each: whether it fits, its name, and at the right its size or how far its download is."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from macllm.fit import Fit
from macllm.units import size
from macllm_tui.downloads import Download
from macllm_tui.model_rows import Row
from macllm_tui.widgets.fit_badge import mark

_MIDDLE = 24  # cells of a name that is shortened in its middle, where what tells models apart is at the end


class ModelList(OptionList):
    """The rows of one section. ``fit`` and ``download`` say what is known of a row now."""

    DEFAULT_CSS = """
    ModelList {
        border: none; padding: 0; background: $background; height: 1fr; scrollbar-size-vertical: 1;
        &:focus { border: none; background-tint: $foreground 0%; }
        & > .option-list--option-highlighted, &:focus > .option-list--option-highlighted {
            color: $foreground; background: $primary-muted; text-style: bold;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select", "use")]

    def __init__(
        self, fit: Callable[[Row], Fit | None], download: Callable[[Row], Download | None], **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self._fit, self._download = fit, download
        self.rows: list[Row] = []

    @property
    def row(self) -> Row | None:
        """The highlighted one."""
        at = self.highlighted
        return self.rows[at] if at is not None and at < len(self.rows) else None

    def show(self, rows: Sequence[Row], chosen: str = "") -> None:
        """Lists these; ``chosen`` is the source or name to highlight, else the one at the same place."""
        before = self.highlighted or 0
        self.rows = list(rows)
        self.clear_options()
        self.add_options([Option(self._line(row)) for row in self.rows])
        if self.rows:
            found = (at for at, row in enumerate(self.rows) if chosen and chosen in (row.source, row.name))
            self.highlighted = next(found, min(before, len(self.rows) - 1))

    def redraw(self, source: str | None = None) -> None:
        """Draws the lines of ``source`` anew, or all."""
        for at, row in enumerate(self.rows):
            if source is None or row.source == source:
                self.replace_option_prompt_at_index(at, self._line(row))

    def on_resize(self) -> None:
        self.redraw()

    def _line(self, row: Row) -> Content:
        width = max(self.scrollable_content_region.width - 2, 20)
        right = self._right(row)
        room = width - 2 - len(right) - 1
        name = row.title if row.section == "search" else row.name
        shown = shortened(name, room)
        gap = " " * (room - Content(shown).cell_length + 1)
        return Content.assemble(
            mark(self._fit(row)), " ", shown, gap, (right, "" if row.here else "$foreground-muted")
        )

    def _right(self, row: Row) -> str:
        download = self._download(row)
        if download is not None and download.open:
            if download.state == "running" and download.total:
                return f"{100 * download.share:.0f} %"
            return download.state
        if row.missing:
            return "gone"
        amount = size(row.size_bytes) if row.size_bytes is not None else row.quantization or ""
        if row.choices:
            amount = "GGUF"
        if row.gated and not row.here:
            amount = f"gated  {amount}"
        return f"{amount} ✓" if row.here and row.section != "installed" else amount


def shortened(name: str, room: int) -> str:
    """``name`` in ``room`` cells, its middle left out."""
    if len(name) <= room:
        return name
    tail = min(room // 2, _MIDDLE)
    return f"{name[: max(room - tail - 1, 0)]}…{name[len(name) - tail :]}"
