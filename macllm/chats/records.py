"""What the conversation store gives: chats, messages, hits of a search. Frozen and plain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from macllm.engine.metrics import Metrics

Overflow: TypeAlias = Literal["ask", "drop", "summarise", "stop"]
State: TypeAlias = Literal["complete", "stopped", "length", "failed", "partial"]


@dataclass(frozen=True)
class Chat:
    """One conversation: a tree of messages of which the branch that ends at ``head`` is shown.

    ``sampling`` holds what differs from the model's own settings. ``overflow`` says what happens when the
    context is full; ``summary`` then stands for the messages up to ``summary_until``. ``messages`` counts the
    branch that is shown. ``updated`` is when something was last said. Times are ISO 8601 in UTC.
    """

    id: str
    title: str = ""
    created: str = ""
    updated: str = ""
    model: str = ""
    system: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    head: str | None = None
    overflow: Overflow = "ask"
    summary: str = ""
    summary_until: str | None = None
    messages: int = 0


@dataclass(frozen=True)
class StoredMessage:
    """One message, with what produced it. ``parent`` is the message before it, None for the first.

    ``state`` is "partial" while a reply is being written; a reply whose writer is gone is "stopped".
    """

    id: str
    chat: str
    parent: str | None
    role: str
    text: str
    thought: str = ""
    thought_s: float = 0.0
    created: str = ""
    model: str = ""
    model_hash: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    metrics: Metrics | None = None
    state: State = "complete"
    error: str = ""


class Span(NamedTuple):
    """A piece of a snippet; the words that were looked for are bold."""

    text: str
    bold: bool


@dataclass(frozen=True)
class Hit:
    """A message (or, with role "title", a chat's title) that a search found, and the text around it."""

    chat: Chat
    message: str  # its id; of a title the chat's head, empty where there is none
    role: str
    snippet: tuple[Span, ...]
    created: str


@dataclass(frozen=True)
class Preset:
    """A system prompt with a name."""

    name: str
    text: str
