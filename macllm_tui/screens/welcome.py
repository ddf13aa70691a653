"""The first run: no model is here yet. Offers the starter and the two best models that fit this machine."""

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Footer, OptionList, Static
from textual.widgets.option_list import Option

from macllm.errors import MacllmError
from macllm.units import size
from macllm_tui import model_rows
from macllm_tui.downloads import Download, Downloads
from macllm_tui.model_rows import Row
from macllm_tui.screens.downloading import DownloadingScreen
from macllm_tui.widgets.download_lines import DownloadLines
from macllm_tui.widgets.fit_badge import badge

if TYPE_CHECKING:
    from macllm.engine.client import Engine

MACHINE_EVERY_S = 0.2
_MORE = "more"
_OFFERED = "They are downloaded once; nothing you write leaves this machine."


class WelcomeScreen(DownloadingScreen):
    """Dismissed with the model to begin with, or None."""

    DEFAULT_CSS = """
    WelcomeScreen {
        align: center middle;
        background: $background;
        & #box { width: 86; max-width: 100%; height: auto; max-height: 1fr; padding: 0 1; }
        & #title { text-style: bold; color: $text-primary; }
        & #what { margin-bottom: 1; }
        & OptionList {
            height: auto; max-height: 100%; border: none; padding: 0; background: $background;
            &:focus { border: none; background-tint: $foreground 0%; }
            & > .option-list--option-highlighted, &:focus > .option-list--option-highlighted {
                color: $foreground; background: $primary-muted; text-style: none;
            }
        }
        & #said { height: auto; margin-top: 1; color: $text-muted; }
        & #said.failed { color: $text-error; }
        & DownloadLines { margin-top: 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "pause"),
        Binding("c", "cancel", "cancel"),
        Binding("m", "more", "more models"),
        Binding("escape", "leave", "without a model"),
    ]

    def __init__(self, engine: "Engine", downloads: Downloads) -> None:
        super().__init__(engine, downloads)
        self._rows: list[Row] = []

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="box", can_focus=False):
            yield Static("macllm", id="title")
            yield Static("Talk with language models that run on your own machine.", id="what")
            yield Choices()
            yield Static("", id="said", markup=False)
            yield DownloadLines()
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._say(f"No model is here yet. Choose one to begin with. {_OFFERED}")
        self._offer()
        if self._engine.machine is None:
            self._watch = self.set_interval(MACHINE_EVERY_S, self._see_machine)

    @property
    def _limit(self) -> int | None:
        machine = self._engine.machine
        return machine.memory_limit_bytes if machine is not None else None

    def _see_machine(self) -> None:
        if self._engine.machine is not None:
            self._watch.stop()
            self._offer()

    @work(exclusive=True, group="offer")
    async def _offer(self) -> None:
        """Lists the starter, the two best for this machine, and the way to all others."""
        try:
            best = await asyncio.to_thread(model_rows.recommended, self._limit)
            self._rows = [await asyncio.to_thread(model_rows.starter_row), *best]
        except (MacllmError, OSError) as error:
            self._say(str(error), failed=True)
        options = self.query_one(OptionList)
        at = options.highlighted or 0
        options.clear_options()
        options.add_options([Option(self._line(row), id=row.source) for row in self._rows])
        options.add_option(
            Option(
                Content.assemble(("More models", "bold"), "\nThe catalogue, and a search of Hugging Face."),
                id=_MORE,
            )
        )
        options.highlighted = at

    def _line(self, row: Row) -> Content:
        fit = model_rows.fit_of(row, None, self._limit) if self._limit is not None else None
        what = row.description
        if row is self._rows[0]:
            what = "Here in seconds, to try things with."
        return Content.assemble(
            (row.title, "bold"), f"  {size(row.size_bytes or 0)}  ", badge(fit), f"\n{what}"
        )

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        if event.option_id == _MORE:
            self.action_more()
            return
        row = self._rows[event.option_index]
        if row.here:
            self._begin(row.name)
            return
        self._wanted = row.source
        self._say(f"{row.title} comes. The chat begins as soon as it is here.")
        self._downloads.add(row.source)

    def action_more(self) -> None:
        self._more()

    @work(group="more")
    async def _more(self) -> None:
        from macllm_tui.screens.models import ModelsScreen

        ref = await self.app.push_screen_wait(
            ModelsScreen(self._engine, self._downloads, section="catalogue")
        )
        if ref is not None:
            self.dismiss(ref)

    def action_leave(self) -> None:
        self.dismiss(None)

    def changed(self, download: Download) -> None:
        """The chat begins with the one that was chosen."""
        if download.state == "done" and download.source == self._wanted and self.is_current:
            self._begin(download.name)

    @work(group="begin")
    async def _begin(self, name: str) -> None:
        await self._leave_with(name)


class Choices(OptionList):
    """The models to begin with."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select", "download and begin")]
