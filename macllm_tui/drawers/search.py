"""All chats: the recent ones by day, or those in which words were said."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from itertools import groupby
from typing import Any, ClassVar

from rich.cells import cell_len, set_cell_size
from textual import work
from textual.binding import Binding
from textual.content import Content
from textual.widgets.option_list import Option

from macllm.chats.async_store import AsyncStore
from macllm.chats.records import Chat, Hit
from macllm.errors import MacllmError
from macllm_tui.drawers.choices import Confirm
from macllm_tui.drawers.filtered import FilteredDrawer
from macllm_tui.widgets.sidebar import day_name
from macllm_tui.widgets.visible import visible

_PAGE = 100  # recent chats at a time
_HITS = 60


def _now() -> datetime:
    return datetime.now().astimezone()


class ChatSearch(FilteredDrawer[tuple[str, str | None]]):
    """Gives the chat's id, and the message's where words led to one; None when left. ``now`` tells the day."""

    heading = "Chats"
    placeholder = "words of a title or a message"
    BINDINGS: ClassVar[list[Any]] = [
        Binding("enter", "open", "open"),
        Binding("d,delete", "delete", "delete in the list"),
    ]

    def __init__(self, store: AsyncStore, words: str = "", now: Callable[[], datetime] = _now) -> None:
        super().__init__(words)
        self._store = store
        self._now = now
        self._day = ""  # the last heading shown
        self._titles: dict[str, str] = {}
        self._chats = 0

    async def find(self, words: str, offset: int) -> Sequence[Option]:
        """Hits of the words, or the chats by the day something was last said in them."""
        if words:
            return [] if offset else self._hits(await self._store.search(words, _HITS))
        if not offset:
            self._day, self._chats = "", 0
        chats = await self._store.chats(_PAGE, self._chats)
        self._chats += len(chats)
        return self._by_day(chats)

    def take(self, option: str) -> None:
        """Gives the chat and the message."""
        chat, _, message = option.partition(" ")
        self.dismiss((chat, message or None))

    def nothing(self, words: str) -> str:
        """Why the list is empty."""
        if words:
            return "Nothing was found; try fewer words, or the beginnings of words."
        return "There are no chats yet. What you say is kept here."

    def _by_day(self, chats: Sequence[Chat]) -> list[Option]:
        today = self._now().date()
        options: list[Option] = []
        for day, group in groupby(chats, key=lambda chat: day_name(chat.updated, today)):
            if day != self._day:
                options.append(Option(Content.styled(day, "$text-primary bold"), disabled=True))
                self._day = day
            options += [Option(self._line(chat), id=f"{chat.id} ") for chat in group]
        return options

    def _hits(self, hits: Sequence[Hit]) -> list[Option]:
        options: dict[str, Content] = {}
        for hit in hits:
            spans = [(visible(span.text), "bold underline" if span.bold else "") for span in hit.snippet]
            who = {"user": "you: ", "assistant": "reply: "}.get(hit.role, "")
            lines = [self._line(hit.chat, hit.created, "bold")]
            if hit.role != "title":
                lines.append(Content.assemble("  " + who, *spans))
            # a title and a message of the same chat may lead to the same place
            options.setdefault(f"{hit.chat.id} {hit.message}", Content("\n").join(lines))
        return [Option(content, id=id_) for id_, content in options.items()]

    def _line(self, chat: Chat, when: str = "", style: str = "") -> Content:
        self._titles[chat.id] = title = visible(chat.title).strip() or "untitled"
        said = moment(when or chat.updated, self._now().date())
        room = max(12, self.listing.size.width - len(said) - 5)
        if cell_len(title) > room:
            title = set_cell_size(title, room - 1) + "…"
        return Content.assemble((set_cell_size(title, room), style), "  " + said)

    @work(exclusive=True, group="delete")
    async def action_delete(self) -> None:
        """Deletes the chosen chat, after asking."""
        option, at = self.listing.highlighted_option, self.listing.highlighted
        if not self.listing.has_focus or option is None or option.id is None or at is None:
            return
        chat = option.id.partition(" ")[0]
        if not await self.app.push_screen_wait(
            Confirm(f"Delete “{self._titles[chat]}”? It cannot be had back.", "delete")
        ):
            return
        try:
            await self._store.delete(chat)
        except MacllmError as error:
            self.say(str(error))
        await self.refill(at)

    def on_resize(self) -> None:
        """The dates stand at the right edge."""
        self.refresh_soon(0, self.listing.highlighted or 0)


def moment(when: str, today: date) -> str:
    """When something was said, in local time: ``14:03`` today, else ``3 Nov``, with the year of another."""
    at = datetime.fromisoformat(when).astimezone()
    if at.date() == today:
        return f"{at:%H:%M}"
    return f"{at.day} {at:%b}" if at.year == today.year else f"{at.day} {at:%b %Y}"
