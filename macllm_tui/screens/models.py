"""Choose, download and delete models: those on this machine, the catalogue, and a search of the Hugging Face hub."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.widgets import Footer, Input, OptionList, Static, Tab, Tabs

from macllm.errors import MacllmError
from macllm.fit import Fit
from macllm.units import size
from macllm_tui import model_deletion, model_rows
from macllm_tui.downloads import Download, Downloads
from macllm_tui.model_rows import Facts, Row, Section
from macllm_tui.screens.downloading import DownloadingScreen
from macllm_tui.widgets.download_lines import DownloadLines
from macllm_tui.widgets.model_details import details
from macllm_tui.widgets.model_list import ModelList

if TYPE_CHECKING:
    from macllm.engine.client import Engine

SECTIONS: tuple[Section, ...] = ("installed", "catalogue", "search")
SETTLED_S = 0.2  # a highlight that stays so long is looked at: its config is fetched
MACHINE_EVERY_S = 0.2  # how often to look whether the engine has said what this machine is
_READ: Mapping[Section, Callable[[], list[Row]]] = {
    "installed": model_rows.installed_rows,
    "catalogue": model_rows.catalogue_rows,
}
_EMPTY: Mapping[Section, str] = {
    "installed": "No model is on this machine yet. Press 2 for the catalogue.",
    "catalogue": "No model of the catalogue has such a name. Press 3 to search the hub.",
    "search": "Type a name and press enter: Hugging Face is searched for MLX, GGUF and safetensors models.",
}


class ModelsScreen(DownloadingScreen):
    """Dismissed with the model to use, or None. ``current`` is the name of the one in use."""

    DEFAULT_CSS = """
    ModelsScreen {
        background: $background;
        & Tabs { height: 2; }
        & #words { height: 1; border: none; padding: 0 1; background: $surface; display: none; }
        & #words.shown { display: block; }
        & #body { height: 1fr; layout: vertical; }
        & #left { height: 1fr; }
        & #empty { height: auto; padding: 1 2; color: $text-muted; display: none; }
        & #details { height: 1fr; max-height: 45%; padding: 0 1; scrollbar-size-vertical: 1; border-top: solid $panel; }
        & #said { height: auto; max-height: 3; padding: 0 1; color: $text-accent; display: none; }
        & #said.shown { display: block; }
        & #said.failed { color: $text-error; }
    }
    ModelsScreen.-wide {
        & #body { layout: horizontal; }
        & #left { width: 46%; height: 100%; }
        & #details { width: 1fr; height: 100%; max-height: 100%; border-top: none; border-left: solid $panel; }
    }
    """
    deletes = "⌫"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 Textual's own name and type
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d,space", "download", "download", key_display="d"),
        Binding("p", "pause", "pause", tooltip="pause the download, or go on with it"),
        Binding("c", "cancel", "cancel", tooltip="cancel the download"),
        Binding("delete,backspace", "delete", "delete", key_display="⌫"),
        Binding("slash", "words", "find", key_display="/"),
        Binding("v", "variants", "quant.", tooltip="choose another quantization"),
        Binding("escape", "leave", "close"),
        Binding("x", "explain", "explain", tooltip="what the model is and where it fits"),
        Binding("1", "section('installed')", "installed", show=False, tooltip="installed models"),
        Binding("2", "section('catalogue')", "catalogue", show=False, tooltip="the catalogue"),
        Binding("3", "section('search')", "search", show=False, tooltip="search Hugging Face"),
        Binding("down", "to_list", "to the list", show=False),
    ]

    def __init__(
        self, engine: "Engine", downloads: Downloads, current: str = "", section: Section = "installed"
    ) -> None:
        super().__init__(engine, downloads)
        self._current = current
        self._section: Section = section
        self._rows: dict[Section, list[Row]] = {}
        self._words: dict[Section, str] = {}
        self._facts: dict[str, Facts] = {}
        self._free: int | None = None

    def compose(self) -> ComposeResult:
        tabs = Tabs(
            Tab("1 Installed", id="installed"),
            Tab("2 Catalogue", id="catalogue"),
            Tab("3 Search", id="search"),
            active=self._section,
        )
        tabs.can_focus = False
        yield tabs
        yield Input(id="words", compact=True)
        with Container(id="body"):
            with Vertical(id="left"):
                yield ModelList(self._fit, self._download_of, id="list", markup=False)
                yield Static("", id="empty", markup=False)
            with VerticalScroll(id="details"):
                yield Static("", id="text", markup=False)
        yield Static("", id="said", markup=False)
        yield DownloadLines()
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self._list.focus()
        self._watch_machine = self.set_interval(MACHINE_EVERY_S, self._see_machine)
        self._load(self._section, self._current)

    # -- what is shown -----------------------------------------------------------------------------------

    @property
    def _list(self) -> ModelList:
        return self.query_one(ModelList)

    @property
    def row(self) -> Row | None:
        """The highlighted model."""
        return self._list.row

    def _fit(self, row: Row) -> Fit | None:
        return self._judged(row, self._facts.get(row.source))

    def _judged(self, row: Row, facts: Facts | None) -> Fit | None:
        machine = self._engine.machine
        if machine is None:
            return None
        value_bytes = 4 if machine.dtype == "float32" else 2
        return model_rows.fit_of(row, facts, machine.memory_limit_bytes, value_bytes)

    def _download_of(self, row: Row) -> Download | None:
        return self._downloads.of(row.source)

    def _see_machine(self) -> None:
        if self._engine.machine is not None:
            self._watch_machine.stop()
            self._list.redraw()
            self._show_details()

    @work(exclusive=True, group="rows")
    async def _load(self, section: Section, chosen: str = "") -> None:
        """Reads a section's rows from this disk."""
        try:
            self._rows[section] = await asyncio.to_thread(_READ[section])
            self._free = await asyncio.to_thread(model_rows.free_bytes)
        except (MacllmError, OSError) as error:
            self._rows[section] = []
            self._say(str(error), failed=True)
        if section == self._section:
            self._show_rows(chosen)

    def _show_rows(self, chosen: str = "", sentence: str = "") -> None:
        if self._taken_down:
            return
        rows = self._rows.get(self._section, [])
        words = self._words.get(self._section, "").lower()
        if self._section != "search" and words:
            rows = [row for row in rows if words in f"{row.name} {row.title} {row.description}".lower()]
        if not chosen and self.row is not None:
            chosen = self.row.source
        self._list.show(rows, chosen)
        self._list.display = self.query_one("#details").display = bool(rows)
        empty = self.query_one("#empty", Static)
        empty.display = not rows
        if self._section == "installed" and words:
            sentence = sentence or "No installed model has such a name. Esc shows all of them."
        empty.update(sentence or _EMPTY[self._section])
        self._show_details()

    def _show_details(self) -> None:
        row = self.row
        text = self.query_one("#text", Static)
        if row is None:
            text.update("")
            return
        in_use = row.here and row.name == self._current
        text.update(details(row, self._facts.get(row.source), self._fit(row), in_use=in_use, free=self._free))

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        self._show_details()
        if self.row is not None and self.row.source not in self._facts:
            self._look_at(self.row)

    @work(exclusive=True, group="facts")
    async def _look_at(self, row: Row) -> None:
        await asyncio.sleep(SETTLED_S)
        facts = await asyncio.to_thread(model_rows.facts_of, row)
        self._facts[row.source] = facts
        if self._taken_down:
            return
        self._list.redraw(row.source)
        self._show_details()

    # -- sections and words ------------------------------------------------------------------------------

    def action_section(self, section: Section) -> None:
        self.query_one(Tabs).active = section

    @on(Tabs.TabActivated)
    def _activated(self, event: Tabs.TabActivated) -> None:
        section = next(each for each in SECTIONS if each == event.tab.id)
        if section == self._section:
            return
        self._section = section
        self._say("")
        self._show_words(focus=section == "search" and not self._rows.get(section))
        if section in self._rows or section == "search":
            self._show_rows()
        else:
            self._load(section)

    def _show_words(self, *, focus: bool = False) -> None:
        words = self.query_one("#words", Input)
        text = self._words.get(self._section, "")
        words.placeholder = "search Hugging Face" if self._section == "search" else "part of a name"
        with words.prevent(Input.Changed):
            words.value = text
        words.set_class(focus or bool(text) or self._section == "search", "shown")
        if focus:
            words.focus()
        else:
            self._list.focus()

    def action_words(self) -> None:
        self._show_words(focus=True)

    def action_to_list(self) -> None:
        if self._list.rows:
            self._list.focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._words[self._section] = event.value.strip()
        if self._section != "search":
            self._show_rows()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self._section == "search":
            self._search(self._words.get("search", ""))
        else:
            self.action_to_list()

    @work(exclusive=True, group="search")
    async def _search(self, words: str) -> None:
        self._rows["search"] = []
        self._show_rows(sentence=f"Searching the hub for '{words}'…")
        sentence = f"The hub has no model to run under '{words}'. Try fewer or other words."
        try:
            self._rows["search"] = await asyncio.to_thread(model_rows.search_rows, words)
        except (MacllmError, OSError) as error:
            sentence = str(error)
        if self._section == "search":
            self._show_rows(sentence=sentence)
            self.action_to_list()

    # -- what is done ------------------------------------------------------------------------------------

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        if self.row is not None:
            self._use(self.row)

    @work(group="use")
    async def _use(self, row: Row) -> None:
        """Uses the model; one that is not here is downloaded first."""
        if row.here:
            await self._leave_with(row.name)
            return
        wanted = await self._to_download(row)
        if wanted is not None:
            self._wanted = wanted.source
            self._say(f"{wanted.title} is used as soon as it is here. Esc leaves; the download goes on.")
            self._downloads.add(wanted.source)

    def action_download(self) -> None:
        if self.row is not None:
            self._download(self.row)

    @work(group="use")
    async def _download(self, row: Row) -> None:
        if row.here:
            self._say(f"{row.name} is on this machine already; enter uses it.")
            return
        wanted = await self._to_download(row)
        if wanted is not None:
            self._downloads.add(wanted.source)

    async def _to_download(self, row: Row) -> Row | None:
        """The row, with a quantization chosen where that has to be; None where the person thinks better of it."""
        from macllm_tui.drawers.choices import Confirm

        if row.choices:
            chosen = await self._choose_variant(row)
            if chosen is None or chosen.here:
                return None
            row = chosen
        fit = self._fit(row)
        if fit is not None and fit.verdict == "too big":
            question = f"{fit.sentence} Download {row.title} all the same?"
            if not await self.app.push_screen_wait(Confirm(question, "download")):
                return None
        return row

    def action_variants(self) -> None:
        if self.row is not None and self.row.hub is None:
            self._say(f"There is only one form of {self.row.title}.")
        elif self.row is not None:
            self._vary(self.row)

    @work(group="use")
    async def _vary(self, row: Row) -> None:
        await self._choose_variant(row)

    async def _choose_variant(self, row: Row) -> Row | None:
        """Asks which quantization, and puts it in the row's place."""
        from macllm_tui.screens.conversion import convert
        from macllm_tui.screens.variants import Conversion, VariantsScreen

        choice = await self.app.push_screen_wait(
            VariantsScreen(row, self._facts.get(row.source), self._judged)
        )
        if choice is None:
            return None
        if isinstance(choice, Conversion):
            try:
                self._say(await convert(self.app, row, choice.bits))
            except MacllmError as error:
                self._say(str(error), failed=True)
            self._reload()
            return None
        chosen = await asyncio.to_thread(model_rows.with_variant, row, choice)
        rows = self._rows.get(self._section, [])
        if row in rows:
            self._facts.setdefault(chosen.source, self._facts.get(row.source, Facts()))
            rows[rows.index(row)] = chosen
            self._show_rows(chosen.source)
        return chosen

    def target(self) -> Download | None:
        """The highlighted model's download, else the first that is open."""
        own = self._downloads.of(self.row.source) if self.row is not None else None
        return own if own is not None and own.open else super().target()

    def action_delete(self) -> None:
        if self.row is not None:
            self._delete(self.row)

    @work(group="delete")
    async def _delete(self, row: Row) -> None:
        from macllm_tui.drawers.choices import Confirm

        try:
            question = await asyncio.to_thread(model_deletion.question, row, in_use=row.name == self._current)
            if question is None:
                self._say(f"Nothing of {row.title} is on this machine, so there is nothing to delete.")
                return
            if not await self.app.push_screen_wait(Confirm(question, "delete")):
                return
            if row.here or row.missing:
                said = await asyncio.to_thread(model_deletion.delete, row)
            else:
                said = f"{size(await self._downloads.delete(row.source))} freed."
        except (MacllmError, OSError) as error:
            self._say(str(error), failed=True)
            return
        self._say(said)
        self._reload()

    def action_explain(self) -> None:
        from macllm_tui.screens.explain import ExplainScreen

        if self.row is not None:
            self.app.push_screen(ExplainScreen(self.row.name if self.row.here else self.row.source))

    def action_leave(self) -> None:
        words = self.query_one("#words", Input)
        if words.has_focus and (self._list.rows or words.value or self._section != "search"):
            if self._section != "search":
                self._words[self._section] = ""
                self._show_words()
                self._show_rows()
            else:
                self.action_to_list()
                if not self._list.rows:
                    words.value = ""
            return
        self.dismiss(None)

    @work(group="leave")
    async def _leave(self, name: str) -> None:
        await self._leave_with(name)

    # -- downloads ---------------------------------------------------------------------------------------

    def changed(self, download: Download) -> None:
        """Its row moves; one that is here is used, where that was wished."""
        self._list.redraw(download.source)
        if download.state != "done":
            return
        if download.source == self._wanted:
            self._leave(download.name)
        else:
            self._say(f"{download.name} is here.")
            self._reload()

    @work(exclusive=True, group="reload")
    async def _reload(self) -> None:
        """Reads anew what is on this machine, for all sections."""
        try:
            for section, read in _READ.items():
                self._rows[section] = await asyncio.to_thread(read)
            self._rows["search"] = await asyncio.to_thread(model_rows.refreshed, self._rows.get("search", []))
            self._free = await asyncio.to_thread(model_rows.free_bytes)
        except (MacllmError, OSError) as error:
            self._say(str(error), failed=True)
        self._show_rows()
