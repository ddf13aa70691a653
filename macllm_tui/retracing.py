"""Where in a tree of messages something was said, told from what the model was given then."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, TypeAlias

from macllm.chats.records import Chat, StoredMessage
from macllm.tokenizer.messages import Message
from macllm_tui.prompting import messages_of

How: TypeAlias = Literal["say", "answer", "resume"]
Path: TypeAlias = tuple[StoredMessage, ...]  # from the first message to one below it


@dataclass(frozen=True)
class Place:
    """``say`` ``text`` after the path's end, ``answer`` that end once more, or ``resume`` a reply to it."""

    how: How
    path: Path
    text: str = ""


class Tree:
    """The messages of one chat that were seen so far, oldest first."""

    def __init__(self) -> None:
        self._messages: dict[str, StoredMessage] = {}

    def see(self, branch: Sequence[StoredMessage]) -> None:
        """Takes in the branch that is shown."""
        self._messages.update((message.id, message) for message in branch)

    def find(self, chat: Chat, shown: Path, asked: Sequence[Message], *, resumed: bool) -> Place | None:
        """Where the model was given ``asked``: on the branch shown if that can be, else on the newest.

        A message that is there already was answered once more, rather than said twice.
        """
        places = [
            place
            for path in self._paths(shown)
            if (place := _place(path, _said(messages_of(chat, path)), _said(asked), resumed=resumed))
        ]
        return next((place for place in places if place.how == "answer"), places[0] if places else None)

    def nearest(self, chat: Chat, shown: Path, asked: Sequence[Message]) -> tuple[Path, int]:
        """The longest path that ``asked`` begins with and a message of the user can follow, and its messages."""
        said = _said(asked)[:-1]
        found: tuple[Path, int] = (), len(messages_of(chat, ()))
        for path in self._paths(shown):
            read = _said(messages_of(chat, path))
            follows = not path or path[-1].role == "assistant"
            if follows and len(read) > found[1] and read == said[: len(read)]:
                found = path, len(read)
        return found

    def reply(self, path: Path, asked: Message) -> StoredMessage | None:
        """The reply below a path that ``asked`` is the most of."""
        below = [
            one for one in self._messages.values() if one.parent == path[-1].id and one.role == asked.role
        ]
        return max(reversed(below), key=lambda one: _likeness(one, asked), default=None)

    def _paths(self, shown: Path) -> Iterator[Path]:
        for length in range(len(shown), 0, -1):
            yield shown[:length]
        on_it = {message.id for message in shown}
        for message in reversed(self._messages.values()):
            if message.id not in on_it:
                yield self._path(message)
        yield ()

    def _path(self, message: StoredMessage) -> Path:
        path = [message]
        while path[-1].parent is not None:
            path.append(self._messages[path[-1].parent])
        return tuple(reversed(path))


Said: TypeAlias = list[tuple[str, str]]


def _said(messages: Sequence[Message]) -> Said:
    return [(message.role, message.text) for message in messages]


def _place(path: Path, read: Said, asked: Said, *, resumed: bool) -> Place | None:
    *before, (_, text) = asked
    by_user = bool(path) and path[-1].role == "user"
    if resumed:
        return Place("resume", path, text) if by_user and read == before else None
    if by_user:
        return Place("answer", path) if read == asked else None
    if read == before:
        return Place("say", path, text)
    if read and read[-1][0] == "user" and read[:-1] == before:  # its reply failed: both are one turn
        start = f"{read[-1][1]}\n\n"
        return Place("say", path, text.removeprefix(start)) if text.startswith(start) else None
    return None


def _likeness(reply: StoredMessage, asked: Message) -> tuple[bool, int]:
    pairs = zip(reply.text, asked.text, strict=False)
    return reply.thought == (asked.reasoning or ""), sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)
    )
