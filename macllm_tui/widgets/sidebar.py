"""The list of chats beside the conversation, by day."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import groupby

from rich.text import Text
from textual import on
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from macllm.chats.records import Chat
from macllm_tui.widgets.visible import visible


class ChatList(OptionList):
    """Newest chats first, under the days they were last used on."""

    DEFAULT_CSS = """
    ChatList {
        width: 24; height: 1fr; border: none; border-right: solid $panel; padding: 0 1 0 0;
        text-wrap: nowrap; text-overflow: ellipsis; scrollbar-size-vertical: 1;
        background: $background;
        &:focus { border: none; border-right: solid $primary; }
        & > .option-list--option-disabled { color: $foreground-muted; }
    }
    """

    class Opened(Message):
        """The user chose a chat."""

        def __init__(self, chat: str) -> None:
            super().__init__()
            self.chat = chat

    def show(self, chats: Sequence[Chat], current: str | None, writing: frozenset[str], today: date) -> None:
        """Fills the list; ``writing`` are the chats in which a reply is under way."""
        options: list[Option] = []
        place: int | None = None
        for day, group in groupby(chats, key=lambda chat: day_name(chat.updated, today)):
            options.append(Option(day, disabled=True))
            for chat in group:
                mark = "▸ " if chat.id == current else "… " if chat.id in writing else "  "
                if chat.id == current:
                    place = len(options)
                options.append(
                    Option(Text(mark + visible(chat.title), no_wrap=True, overflow="ellipsis"), id=chat.id)
                )
        if not options:
            options.append(Option("no chats yet", disabled=True))
        self.clear_options()
        self.add_options(options)
        self.highlighted = place

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id is not None:
            self.post_message(self.Opened(event.option_id))


def day_name(when: str, today: date) -> str:
    """``today``, ``yesterday``, ``last 7 days``, or the month of an ISO 8601 time, in local time."""
    day = datetime.fromisoformat(when).astimezone().date()
    if day >= today:
        return "today"
    if day == today - timedelta(days=1):
        return "yesterday"
    if day > today - timedelta(days=7):
        return "last 7 days"
    return f"{day:%B}" if day.year == today.year else f"{day:%B %Y}"
