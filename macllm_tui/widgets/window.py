"""Which messages of a chat are widgets: those around the screen; more are made where one scrolls to."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeAlias

from textual import work
from textual.widget import Widget

from macllm_tui.widgets.finding import Finder
from macllm_tui.widgets.message import MessageView
from macllm_tui.widgets.message_rows import Entry
from macllm_tui.widgets.place import PlaceKeeper

OPENED = 20  # messages that become widgets at once
MORE = 10  # and when one scrolls to the first or the last of them
KEPT = 60  # widgets that stay when the next reply begins
NEAR_EDGE = 10  # rows from the first or last widget at which more are made

Job: TypeAlias = Callable[[], Coroutine[None, None, None]]


class MessageWindow(PlaceKeeper):
    """A column of messages. One unbroken run of them are widgets, mounted before ``below``."""

    def __init__(self, below: Widget, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._below = below
        self._entries: list[Entry] = []
        self._views: list[MessageView] = []  # of the entries from _low on
        self._low = 0
        self._lock = asyncio.Lock()  # the widgets change in one place at a time
        self._jumps = 0
        self._chosen: str | None = None
        self._folded = True
        self._finder = Finder()

    @property
    def entries(self) -> Sequence[Entry]:
        """All messages of the branch, also those that are no widgets."""
        return self._entries

    @property
    def at_end(self) -> bool:
        """Whether the last message is a widget."""
        return self._high == len(self._entries)

    @property
    def _high(self) -> int:
        return self._low + len(self._views)

    def _index(self, message: str | None) -> int | None:
        numbered = range(len(self._entries) - 1, -1, -1)
        return next((number for number in numbered if self._entries[number].message.id == message), None)

    def _view(self, index: int) -> MessageView | None:
        return self._views[index - self._low] if self._low <= index < self._high else None

    # going elsewhere

    def action_scroll_end(self) -> None:
        """Goes to the last message and follows it."""
        self._jump(self._to_end)

    def action_scroll_home(self) -> None:
        """Goes to the first message."""
        self._jump(self._to_start)

    def scrolled(self) -> None:
        """Makes widgets of the messages that come near the screen."""
        if self._lock.locked() or not self._views:
            return  # what holds it lays out, which calls this again
        if self._low and self.scroll_y < NEAR_EDGE:
            self._extend_up()
        elif not self.at_end and self.max_scroll_y - self.scroll_y < NEAR_EDGE:
            self._extend_down()

    def _reach(self, index: int, then: Callable[[MessageView], None]) -> None:
        """Does something with the widget of a message, which is made if it must be."""
        view = self._view(index)
        if view is not None and view.is_mounted and view.size:
            self._jumps += 1  # a jump that waits is out of date
            then(view)
            return

        async def reach() -> None:
            if self._view(index) is None:
                await self._open(max(index - MORE, 0), min(index + MORE, len(self._entries)))
            if (made := self._view(index)) is not None:
                self.read(made, 0)
                self.call_after_refresh(then, made)

        self._jump(reach)

    def _jump(self, job: Job) -> None:
        self._jumps += 1
        self._run_jump(self._jumps, job)

    @work(group="jump")  # not exclusive: one that is under way must not stop in the middle
    async def _run_jump(self, number: int, job: Job) -> None:
        async with self._lock:
            if number == self._jumps:  # nothing newer was asked for meanwhile
                await job()

    async def _to_end(self) -> None:
        if not self.at_end:
            await self._open(max(len(self._entries) - OPENED, 0), len(self._entries))
        self.follow()

    async def _to_start(self) -> None:
        if self._low:
            await self._open(0, min(OPENED, len(self._entries)))
        if self._views:
            self.read(self._views[0], 0)

    # widgets come and go; whoever calls these holds the lock

    async def _open(self, low: int, high: int, kept: int = 0, entries: Sequence[Entry] | None = None) -> None:
        """Makes widgets of these messages and of no others; the first ``kept`` of those there are stay."""
        entries = self._entries if entries is None else list(entries)
        views = await self._made(entries[low + kept : high])
        with self.app.batch_update():
            old, self._views, self._low = self._views[kept:], self._views[:kept] + views, low
            self._entries = entries
            for view in self._views[:kept]:
                view.mark(self._finder.pattern)
            if old:
                await self.remove_children(old)
            await self.mount_all(views, before=self._below)

    async def _append(self, view: MessageView) -> None:
        """Adds a message at the end. One that is there already goes on: what stood after it gives way too."""
        index = self._index(view.entry.message.id)
        if index is not None:
            first = max(index - self._low, 0)
            gone, self._views = self._views[first:], self._views[:first]
            self._low = min(self._low, index)
            del self._entries[index:]
            await self.remove_children(gone)
        if not self.at_end:
            await self._open(max(len(self._entries) - OPENED, 0), len(self._entries))
        self._entries.append(view.entry)
        self._views.append(view)
        view.mark(self._finder.pattern)
        await self.mount(view, before=self._below)
        self.follow()

    async def _trim(self) -> None:
        """Forgets the widgets far above, so that a long evening stays fast."""
        if self.at_end and len(self._views) > KEPT:
            gone, self._views = self._views[:-OPENED], self._views[-OPENED:]
            self._low += len(gone)
            await self.remove_children(gone)

    async def _made(self, entries: Sequence[Entry]) -> list[MessageView]:
        views = [MessageView(entry, folded=self._folded) for entry in entries]
        width = self._views[0].size.width if self._views else self.scrollable_content_region.width
        await asyncio.to_thread(_prepare, views, width)
        for view in views:
            view.choose(view.entry.message.id == self._chosen)
            view.mark(self._finder.pattern)
        return views

    @work(group="extend")
    async def _extend_up(self) -> None:
        """Makes widgets of the messages before; the place stays."""
        async with self._lock:
            if self._low and self.scroll_y < NEAR_EDGE:
                low = max(self._low - MORE, 0)
                views = await self._made(self._entries[low : self._low])
                first = self._views[0] if self._views else self._below
                self._views, self._low = views + self._views, low
                await self.mount_all(views, before=first)

    @work(group="extend")
    async def _extend_down(self) -> None:
        """Makes widgets of the messages after."""
        async with self._lock:
            if not self.at_end:
                views = await self._made(self._entries[self._high : self._high + MORE])
                self._views = self._views + views
                await self.mount_all(views, before=self._below)


def _prepare(views: Sequence[MessageView], width: int) -> None:
    for view in views:
        view.prepare(width)
