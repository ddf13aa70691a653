"""The comparison screen: one prompt, two models or settings, one after the other, with figures and what differs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static, TextArea

from macllm.engine.client import Engine
from macllm.engine.protocol import ModelRef
from macllm.engine.request import new_seed
from macllm.errors import MacllmError
from macllm.tokenizer.messages import Message
from macllm_tui.comparison import Kept, Row, Side, SideRun, differences, draws, measured
from macllm_tui.screens.compare_pane import SidePane

__all__ = ["ChooseModel", "ChooseSettings", "CompareScreen", "Kept", "Side"]

ChooseModel = Callable[[], Awaitable[ModelRef | None]]
ChooseSettings = Callable[[Side], Awaitable[Mapping[str, Any] | None]]
WIDE = 100
_DRAW_EVERY_S = 1 / 8
_BETTER = "◀ better", "better ▶"


class ComparePrompt(TextArea):
    """The prompt of both: enter runs, ctrl+j begins a new line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.run", "run", priority=True, tooltip="have both answer"),
        Binding("ctrl+j", "newline", "line", tooltip="begin a new line"),
        Binding("tab", "screen.switch", "side", priority=True, tooltip="the other side"),
    ]

    def action_newline(self) -> None:
        self.insert("\n")


class CompareScreen(Screen[Kept | None]):
    """Compares ``left`` with ``right`` on ``prompt`` after ``messages``. Gives the side that was kept, or nothing.

    ``choose_model`` and ``choose_settings`` let the person change a side; without them the keys do nothing.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "close", tooltip="stop, then close"),
        Binding("enter", "run", "run", tooltip="have both answer"),
        Binding("tab", "switch", "side", tooltip="the other side"),
        Binding("shift+tab", "prompt", "prompt", tooltip="back to the prompt"),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012  (Textual declares it so)
    DEFAULT_CSS = """
    CompareScreen > #compare-title { height: 1; padding: 0 1; background: $panel; color: $text; text-style: bold; }
    CompareScreen > ComparePrompt {
        height: auto; max-height: 5; border: none; border-bottom: solid $panel; padding: 0 1;
    }
    CompareScreen > ComparePrompt:focus { border: none; border-bottom: solid $primary; }
    CompareScreen > #compare-tabs { height: 1; padding: 0 1; display: none; }
    CompareScreen > #compare-sides { height: 1fr; }
    CompareScreen > #compare-table {
        height: auto; max-height: 40%; padding: 0 1; border-top: solid $panel;
    }
    CompareScreen > #compare-table:focus { border-top: solid $primary; }
    CompareScreen.-narrow > #compare-tabs { display: block; }
    CompareScreen.-narrow SidePane { display: none; }
    CompareScreen.-narrow SidePane.-active { display: block; border: none; }
    CompareScreen.-narrow > #compare-table { display: none; height: 1fr; max-height: 100%; }
    CompareScreen.-narrow.-differences > #compare-table { display: block; border: none; }
    CompareScreen.-narrow.-differences > #compare-sides { display: none; }
    """

    def __init__(
        self,
        engine: Engine,
        left: Side,
        right: Side,
        messages: Sequence[Message] = (),
        prompt: str = "",
        *,
        choose_model: ChooseModel | None = None,
        choose_settings: ChooseSettings | None = None,
    ) -> None:
        super().__init__()
        self.seed = new_seed()
        self.active = 0  # the side that keys act on
        self._engine = engine
        self._messages = tuple(messages)
        self._prompt = prompt
        self._choose_model, self._choose_settings = choose_model, choose_settings
        self.panes = SidePane("A", left), SidePane("B", right)
        self._quantizations = ["", ""]
        self._could: object = None  # what could be done when the footer was last drawn

    def compose(self) -> ComposeResult:
        yield Static("Compare", id="compare-title", markup=False)
        yield ComparePrompt(self._prompt, compact=True, show_line_numbers=False, highlight_cursor_line=False)
        yield Static(id="compare-tabs")
        yield Horizontal(*self.panes, id="compare-sides")
        with VerticalScroll(id="compare-table"):
            yield Static(id="compare-rows")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self._activate(0, focus=bool(self._prompt.strip()))
        if not self._prompt.strip():
            self.query_one(ComparePrompt).focus()
        self.set_interval(_DRAW_EVERY_S, self._draw)
        for side in (0, 1):
            self._look_up(side)
        self._draw()

    @property
    def running(self) -> bool:
        """Whether a side is at work, or waits for the other."""
        return any(worker.group == "compare" and not worker.is_finished for worker in self.workers)

    @property
    def pane(self) -> SidePane:
        """The side that keys act on."""
        return self.panes[self.active]

    # -- running -----------------------------------------------------------------------------------------

    def action_run(self) -> None:
        """Asks both, the left one first; the same seed on both."""
        prompt = self.query_one(ComparePrompt).text.strip()
        if self.running:
            return
        if not prompt:
            self.notify("Write a prompt first.", markup=False)
            self.query_one(ComparePrompt).focus()
            return
        self._prompt = prompt
        self._run((*self._messages, Message.of("user", prompt)))

    @work(exclusive=True, group="compare")
    async def _run(self, messages: Sequence[Message]) -> None:
        self.seed = new_seed()
        for pane in self.panes:
            await pane.clear()
        for number, pane in enumerate(self.panes):
            self._activate(number)
            await pane.generate(self._engine, messages, self.seed)
            self._draw()
        self.refresh_bindings()

    def action_leave(self) -> None:
        """Stops both and keeps what came; with nothing under way it closes."""
        if not self.running:
            self.dismiss(None)
            return
        for pane in reversed(self.panes):  # the one that waits must not begin
            if not pane.run.over:
                pane.run.stop()

    # -- sides -------------------------------------------------------------------------------------------

    def action_switch(self) -> None:
        """The other side; on a narrow screen what differs comes after both."""
        if self.query_one(ComparePrompt).has_focus:
            self._activate(self.active, focus=True)
        elif self.has_class("-differences"):
            self._activate(0, focus=True)
        elif self.active == 1 and self.has_class("-narrow"):
            self.add_class("-differences")
            self.query_one("#compare-table").focus()
        else:
            self._activate(1 - self.active, focus=True)
        self._draw()

    def action_prompt(self) -> None:
        """Back to the prompt."""
        self.query_one(ComparePrompt).focus()

    @work(exclusive=True, group="compare-choice")
    async def action_model(self) -> None:
        """Chooses the side's model."""
        number = self.active
        if self._choose_model is None or self.running:
            return
        chosen = await self._choose_model()
        if chosen is not None:
            await self._change(number, replace(self.panes[number].run.side, model=chosen, name=""))

    @work(exclusive=True, group="compare-choice")
    async def action_settings(self) -> None:
        """Chooses the side's sampling settings."""
        number = self.active
        if self._choose_settings is None or self.running:
            return
        chosen = await self._choose_settings(self.panes[number].run.side)
        if chosen is not None:
            await self._change(number, replace(self.panes[number].run.side, settings=dict(chosen)))

    @work(exclusive=True, group="compare-choice")
    async def action_swap(self) -> None:
        """Left becomes right: whoever goes second may find a warmer machine."""
        if self.running:
            return
        left, right = (pane.run for pane in self.panes)
        self._quantizations.reverse()
        await self.panes[0].show_run(right)
        await self.panes[1].show_run(left)
        self._draw()

    def action_copy(self) -> None:
        """Copies the side's reply."""
        if self.pane.run.text:
            self.app.copy_to_clipboard(self.pane.run.text)
            self.notify("The reply is copied.", markup=False)

    def action_keep(self) -> None:
        """Closes with this side, so that the chat goes on with it."""
        run = self.pane.run
        if run.over and run.text:
            self.dismiss(Kept(run.side, self._prompt, run.text, run.thought, run.metrics))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what can be done now has a key."""
        if action in ("model", "settings", "swap", "run") and self.is_mounted and self.running:
            return None if action == "run" else False
        if action == "model":
            return self._choose_model is not None
        if action == "settings":
            return self._choose_settings is not None
        if action in ("copy", "keep"):
            return self.pane.run.over and bool(self.pane.run.text)
        return True

    async def _change(self, number: int, side: Side) -> None:
        await self.panes[number].show_run(SideRun(side))
        self._look_up(number)
        self._draw()

    def _activate(self, number: int, *, focus: bool = False) -> None:
        self.active = number
        self.remove_class("-differences")
        had = any(pane.has_focus_within for pane in self.panes)
        for index, pane in enumerate(self.panes):
            pane.set_class(index == number, "-active")
        if focus or had:
            self.panes[number].take_focus()
        self.refresh_bindings()

    def _look_up(self, number: int) -> None:
        self.run_worker(self._quantization(number), group=f"compare-weights-{number}", exclusive=True)

    async def _quantization(self, number: int) -> None:
        """How the weights are stored, by their files."""
        from macllm.hub import store

        path = Path(self.panes[number].run.side.model.path)
        try:
            found = await asyncio.to_thread(lambda: store.at_path(path).quantization)
        except (MacllmError, OSError):
            found = ""
        self._quantizations[number] = found
        self._draw()

    # -- drawing -----------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Draws what changed; nothing where nothing did."""
        for pane, quantization in zip(self.panes, self._quantizations, strict=True):
            pane.draw(quantization)
        self._update("#compare-tabs", self._tabs())
        self._update("#compare-rows", self._table())
        can = tuple((pane.run.state, bool(pane.run.text)) for pane in self.panes), self.running, self.active
        if can != self._could:
            self._could = can
            self.refresh_bindings()

    def _update(self, selector: str, content: Content) -> None:
        static = self.query_one(selector, Static)
        if static.content != content:
            static.update(content)

    def _tabs(self) -> Content:
        parts: list[Content] = []
        for number, pane in enumerate(self.panes):
            on = number == self.active and not self.has_class("-differences")
            parts.append(_tab(f"{pane.letter} {pane.run.side.title}", on))
        parts.append(_tab("what differs", self.has_class("-differences")))
        return Content("  ").join(parts)

    def _table(self) -> Content:
        left, right = (pane.run for pane in self.panes)
        rows = differences(left, right, (self._quantizations[0], self._quantizations[1]))
        lines = [] if rows else ["Both sides are the same: m changes a model, s the settings."]
        width = max(self.size.width - 4, 20)
        table = [*rows, *measured(left.metrics, right.metrics)]
        if draws(left.side, left.ready) or draws(right.side, right.ready):
            seeds = [str(run.side.settings.get("seed", self.seed)) for run in (left, right)]
            if seeds[0] == seeds[1]:
                lines.append(f"Seed {seeds[0]} on both sides.")
        return Content("\n").join([*(_line(row, width) for row in table), *map(Content, lines)])


def _tab(text: str, active: bool) -> Content:
    return (
        Content.styled(f"[{text}]", "bold $primary") if active else Content.styled(f" {text} ", "$text-muted")
    )


def _line(row: Row, width: int) -> Content:
    """Name, left, right; the better one is marked by an arrow and a word."""
    marks = [_BETTER[0] if row.better == -1 else "", _BETTER[1] if row.better == 1 else ""]
    room = min(24, max(8, (width - 14) // 2 - 10))
    cells = []
    for value, mark, better in zip((row.left, row.right), marks, (-1, 1), strict=True):
        text = value if len(value) <= room else f"{value[: room - 1]}…"
        style = "bold $text-success" if row.better == better else "$text"
        cells.append(
            Content.styled(f"{text or '–':<{room}} ", style) + Content.styled(f"{mark:<9}", "$text-success")
        )
    return Content.styled(f"{row.name[:13]:<14}", "$text-muted") + cells[0] + cells[1]
