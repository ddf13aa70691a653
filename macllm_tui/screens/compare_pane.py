"""One side of a comparison: who answers, how far it is, and the reply as it comes."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from macllm.chats.records import State, StoredMessage
from macllm.engine.client import Engine
from macllm.tokenizer.messages import Message
from macllm_tui.comparison import Side, SideRun
from macllm_tui.widgets.transcript import Entry, Transcript

_STATES: dict[str, State] = {
    "done": "complete",
    "length": "length",
    "stopped": "stopped",
    "failed": "failed",
}


class SidePane(Vertical):
    """A side. ``run`` is what it shows; ``letter`` tells it from the other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "screen.model", "model", tooltip="the model of this side"),
        Binding("s", "screen.settings", "settings", tooltip="the settings of this side"),
        Binding("x", "screen.swap", "swap", tooltip="swap the sides"),
        Binding("c", "screen.copy", "copy", tooltip="copy this reply"),
        Binding("k", "screen.keep", "keep", tooltip="keep this reply in the chat"),
    ]
    DEFAULT_CSS = """
    SidePane { width: 1fr; }
    SidePane:last-child { border-left: solid $panel; }
    SidePane > .compare--head { height: 1; background: $surface; color: $text-muted; }
    SidePane.-active > .compare--head { color: $text; text-style: bold; }
    SidePane.-focused > .compare--head { background: $primary-muted; color: $text; }
    """

    def __init__(self, letter: str, side: Side) -> None:
        super().__init__()
        self.letter = letter
        self.run = SideRun(side)
        self._head = Static(classes="compare--head", markup=False)
        self._transcript = Transcript(empty="Enter asks both sides, one after the other.")
        self._serial = 0

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._transcript

    def on_descendant_focus(self) -> None:
        self.add_class("-focused")

    def on_descendant_blur(self) -> None:
        self.remove_class("-focused")

    def take_focus(self) -> None:
        """Keys go to this side."""
        self._transcript.focus()

    async def clear(self) -> None:
        """Waits for its turn."""
        await self.show_run(SideRun(self.run.side))

    async def show_run(self, run: SideRun) -> None:
        """Shows another run, or one that is yet to come."""
        self.run = run
        self._serial += 1
        await self._transcript.show([self._entry()] if run.over else [])

    async def generate(self, engine: Engine, messages: Sequence[Message], seed: int) -> None:
        """Runs its side to the end, whatever end that is."""
        run = self.run
        if run.over:  # stopped before its turn
            await self._transcript.show([self._entry()])
            return
        await self._transcript.begin(self._entry())
        await run.run(engine, messages, seed, self._transcript.feed)
        await self._transcript.finish(self._entry())

    def draw(self, quantization: str) -> None:
        """The head line: what, how stored, and what it does now."""
        mark = "▸" if self.has_class("-focused") else " "
        parts = [f"{mark}{self.letter}  {self.run.side.title}", *([quantization] if quantization else [])]
        doing = self._doing()
        head = " · ".join([*parts, *([doing] if doing else [])])
        if self._head.content != head:
            self._head.update(head)

    def _doing(self) -> str:
        run = self.run
        if run.state in ("loading", "reading"):
            return f"{run.state} {100 * run.share:.0f} %"
        if run.state == "writing":
            speed = run.metrics.recent_tps or run.metrics.decode_tps
            return f"{speed:.1f} tok/s" if speed else "writing"
        return "" if run.state == "waiting" else run.state.replace("length", "cut at the limit")

    def _entry(self) -> Entry:
        run = self.run
        return Entry(
            StoredMessage(
                id=f"{self.letter}-{self._serial}",
                chat="",
                parent=None,
                role="assistant",
                text=run.text,
                thought=run.thought,
                thought_s=run.metrics.thinking_s,
                model=run.side.model.name,
                metrics=run.metrics if run.over and run.metrics.decode_tokens else None,
                state=_STATES.get(run.state, "partial"),
                error=run.error,
            )
        )
