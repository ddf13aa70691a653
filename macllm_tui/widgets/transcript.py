"""The messages of a chat: those near the screen are widgets, the others wait; a reply grows at the end."""

import asyncio
import re
from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from macllm_tui.widgets.message import MessageView
from macllm_tui.widgets.message_rows import Entry
from macllm_tui.widgets.visible import visible, with_newlines
from macllm_tui.widgets.window import OPENED, MessageWindow

__all__ = ["Entry", "Transcript"]

RATE = 15  # updates a second: fluent to read, and each costs the engine's machine some milliseconds


class Transcript(MessageWindow):
    """A chat's messages from the first to the last of the branch that is shown."""

    DEFAULT_CSS = """
    Transcript {
        layers: messages hint;
        padding: 0 0 0 0;
        scrollbar-size-vertical: 1;
        background: $background;
    }
    Transcript > #empty {
        width: 100%;
        height: 100%;
        content-align: center middle;
        text-align: center;
        color: $text-muted;
    }
    Transcript > #more {
        layer: hint;
        dock: bottom;
        width: 100%;
        height: 1;
        content-align: center middle;
        background: $panel;
        color: $text-primary;
        display: none;
    }
    Transcript > #more.-shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "end,ctrl+end", "scroll_end", "End", show=False, tooltip="to the last message, and follow it"
        ),
        Binding("home,ctrl+home", "scroll_home", "Start", show=False, tooltip="to the first message"),
    ]

    class Chosen(Message):
        """Another message is chosen, or none."""

        def __init__(self, transcript: "Transcript", entry: Entry | None) -> None:
            super().__init__()
            self.transcript = transcript
            self.entry = entry

        @property
        def control(self) -> "Transcript":
            """The transcript."""
            return self.transcript

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002
        classes: str | None = None,
        empty: str = "",
        folded: bool = True,
    ) -> None:
        self._empty = Static(empty, id="empty", markup=False)
        self._more = Static("↓ new text · page down", id="more", markup=False)
        super().__init__(self._more, id=id, classes=classes)
        self._folded = folded
        self._live: MessageView | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """The sentence of an empty chat, and the hint that there is more below."""
        yield self._empty
        yield self._more

    def on_mount(self) -> None:
        """Replies grow by a clock, so that many small pieces cost one update."""
        self._timer = self.set_interval(1 / RATE, self._grow, pause=True)

    # what it shows

    async def show(self, entries: Sequence[Entry]) -> None:
        """Shows a chat, at its end. What it has in common with the one shown before stays as it is."""
        async with self._lock:
            same = self._in_common(entries)
            self._live = None
            self._finder.look_for("")
            self._choose(None)
            stay = self._low < same <= self._high and len(entries) - same <= OPENED
            first = self._low if stay else max(len(entries) - OPENED, 0)
            self._empty.display = not entries
            await self._open(first, len(entries), same - self._low if stay else 0, entries)
            self.follow()
            self._hint()

    def _in_common(self, entries: Sequence[Entry]) -> int:
        """With how many of the messages that are shown these begin; a reply under way is not the same."""
        pairs = enumerate(zip(self._entries, entries, strict=False))
        same = next((number for number, (old, new) in pairs if old != new), None)
        same = min(len(self._entries), len(entries)) if same is None else same
        live = None if self._live is None else self._index(self._live.entry.message.id)
        return same if live is None else min(same, live)

    async def append(self, entry: Entry) -> None:
        """Adds a message that is whole, and goes to it."""
        async with self._lock:
            self._empty.display = False
            await self._append(MessageView(entry, folded=self._folded))

    async def replace(self, entry: Entry) -> None:
        """Shows a message anew: another state, other siblings."""
        index = self._index(entry.message.id)
        if index is None:
            return
        self._entries[index] = entry
        view = self._view(index)
        if view is not None and view is self._live:
            view.relabel(entry)
        elif view is not None:
            (whole,) = await self._made([entry])
            view.settle(whole)

    async def begin(self, entry: Entry) -> None:
        """A reply that will stream; the text it has already is its start. It can be fed from the call on."""
        self._live = view = MessageView(entry, folded=self._folded, live=True)
        await asyncio.to_thread(_warm)
        async with self._lock:
            if self._live is not view:
                return  # another chat is shown by now
            self._empty.display = False
            await self._trim()
            await self._append(view)
        view.grow()
        if self._timer is not None:
            self._timer.resume()

    def feed(self, text: str, thought: str = "", drafted: Sequence[tuple[int, int]] = ()) -> None:
        """Adds to the reply under way; ``drafted`` are the spans of ``text`` that a draft foresaw."""
        if self._live is not None:
            self._live.feed(text, thought, drafted)
            if self._timer is not None:
                self._timer.resume()

    async def finish(self, entry: Entry) -> None:
        """The reply under way is whole: it is rendered once more, all of it, with its figures."""
        view = self._live
        if view is not None and view.entry.message.id == entry.message.id:
            self._live = None
            self._hint()
        await self.replace(entry)

    def toggle_thinking(self) -> bool:
        """Folds or unfolds what was thought, and attached files, in all messages; gives whether they are folded."""
        self._folded = not self._folded
        for view in self._views:
            view.fold(self._folded)
        return self._folded

    # choosing

    @property
    def chosen(self) -> Entry | None:
        """The message that the bar marks."""
        index = self._index(self._chosen)
        return None if index is None else self._entries[index]

    def choose(self, step: int) -> None:
        """Chooses the message before (-1) or after (1), or steps further; after the last none; from none the last."""
        if not self._entries:
            return
        index = self._index(self._chosen)
        index = len(self._entries) + min(step, -1) if index is None else index + step
        index = max(index, 0)
        if index >= len(self._entries):
            self.unchoose()
            self.follow()
            return
        self._choose(index)
        self._reach(index, lambda view: view.scroll_visible(animate=False, top=False))

    def unchoose(self) -> None:
        """Chooses none."""
        self._choose(None)

    def _choose(self, index: int | None) -> None:
        entry = None if index is None else self._entries[index]
        chosen = None if entry is None else entry.message.id
        for view in self._views:
            view.choose(view.entry.message.id == chosen)
        if chosen != self._chosen:
            self._chosen = chosen
            self.post_message(self.Chosen(self, entry))

    def on_click(self, event: events.Click) -> None:
        """A click chooses a message; on the hint it goes to the end."""
        if event.widget is self._more:
            self.action_scroll_end()
        elif isinstance(event.widget, MessageView) and not self.screen.selections:
            self._choose(self._index(event.widget.entry.message.id))

    # finding

    def find(self, words: str, step: int = 1) -> tuple[int, int]:
        """Marks all matches and goes to the next; gives which it is and of how many. No words: no marks.

        What is no widget yet is counted in its source: markup inside the words would hide a match there.
        """
        self._finder.look_for(words)
        pattern = self._finder.pattern
        if pattern is None:
            for view in self._views:
                view.mark(None)
            return 0, 0
        counts = [self._count(index, pattern) for index in range(len(self._entries))]
        found = self._finder.step(counts, step, self._first_seen())
        for view in self._views:
            view.mark(pattern)
        if self._finder.at is not None:
            self._reach(self._finder.at.entry, self._show_match)
        return found

    def _count(self, index: int, pattern: re.Pattern[str]) -> int:
        view = self._view(index)
        if view is not None and view.is_mounted:
            return len(view.matches(pattern))
        return len(pattern.findall(visible(with_newlines(self._entries[index].message.text))))

    def _show_match(self, view: MessageView) -> None:
        at = self._finder.at
        if at is not None and view is self._view(at.entry):
            line = view.mark(self._finder.pattern, at.number)
            self.read(view, line - self.size.height // 3)

    def _first_seen(self) -> int:
        for number, view in enumerate(self._views):
            if view.virtual_region.bottom > self.scroll_y:
                return self._low + number
        return 0

    # the clock and the hint

    def scrolled(self) -> None:
        """Someone scrolled, or the layout has changed."""
        super().scrolled()
        self._hint()

    def _hint(self, came: bool = False) -> None:
        below = self._live is not None and not self.following
        self._more.set_class(below and (came or self._more.has_class("-shown")), "-shown")

    def _grow(self) -> None:
        view = self._live
        if view is not None and view.pending:
            view.grow()
            self._hint(came=True)
        elif self._timer is not None:
            self._timer.pause()


def _warm() -> None:
    """Imports beside the event loop what the first reply needs: a tenth of a second, once."""
    import pygments.lexers  # type: ignore[import-untyped]  # noqa: F401

    from macllm_tui.widgets.markdown import parser

    parser()
