"""A conversation as data: messages made of parts, read from the shapes that OpenAI's API uses."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from macllm.errors import InputError


@dataclass(frozen=True)
class TextPart:
    """A run of text."""

    text: str


Part = TextPart  # images and audio join this union when models read them


@dataclass(frozen=True)
class ToolCall:
    """A function the model asked for, with its arguments parsed."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn. ``reasoning`` is what the model thought before ``parts``."""

    role: str
    parts: tuple[Part, ...]
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None

    @classmethod
    def of(cls, role: str, text: str) -> "Message":
        """A message of one text part."""
        return cls(role, (TextPart(text),))

    @property
    def text(self) -> str:
        """The text of all parts, joined."""
        return "".join(part.text for part in self.parts)


Prompt = str | Sequence[Mapping[str, Any] | Message]

_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")  # what different servers call it
# Keys that change nothing about what the model reads.
_IGNORED_KEYS = {"id", "refusal", "annotations"}
_KNOWN_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", *_REASONING_KEYS}


def to_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Messages from a user's text, from dicts as OpenAI's API has them, or from Message objects."""
    if isinstance(prompt, str):
        return (Message.of("user", prompt),)
    if isinstance(prompt, Mapping | bytes) or not isinstance(prompt, Sequence):
        raise InputError(f"messages: {type(prompt).__name__} is not a list of messages or a string")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(prompt))


def _message(item: object, place: str) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping):
        raise InputError(
            f"{place}: {type(item).__name__} is not a message (expected a dict with role, content)"
        )
    role = item.get("role")
    if not isinstance(role, str) or not role:
        raise InputError(
            f"{place}: role={role!r} is not a role (expected 'system', 'user', 'assistant' or 'tool')"
        )
    unknown = [
        key for key, value in item.items() if key not in _KNOWN_KEYS | _IGNORED_KEYS and value is not None
    ]
    if unknown:
        raise InputError(
            f"{place}: key {unknown[0]!r} is not supported (expected {', '.join(sorted(_KNOWN_KEYS))})"
        )
    reasoning = next((item[key] for key in _REASONING_KEYS if item.get(key) is not None), None)
    return Message(
        role=role,
        parts=_parts(item.get("content"), f"{place}.content"),
        name=_optional_text(item.get("name"), f"{place}.name"),
        tool_calls=_tool_calls(item.get("tool_calls"), f"{place}.tool_calls"),
        tool_call_id=_optional_text(item.get("tool_call_id"), f"{place}.tool_call_id"),
        reasoning=_optional_text(reasoning, f"{place}.reasoning_content"),
    )


def _parts(content: Any, place: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, Sequence):
        raise InputError(f"{place}: {type(content).__name__} is not text or a list of parts")
    return tuple(_part(part, f"{place}[{index}]") for index, part in enumerate(content))


def _part(part: Any, place: str) -> Part:
    if isinstance(part, TextPart):
        return part
    if isinstance(part, str):
        return TextPart(part)
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if kind not in ("text", "input_text", "output_text"):
        raise InputError(f"{place}: a part of type {kind!r} is not supported (expected 'text')")
    text = part.get("text")
    if not isinstance(text, str):
        raise InputError(f"{place}: text={text!r} is not a string")
    return TextPart(text)


def _tool_calls(calls: Any, place: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if isinstance(calls, str | Mapping) or not isinstance(calls, Sequence):
        raise InputError(f"{place}: {type(calls).__name__} is not a list of tool calls")
    return tuple(_tool_call(call, f"{place}[{index}]") for index, call in enumerate(calls))


def _tool_call(call: Any, place: str) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"{place}: a tool call needs a function with a name, found {call!r}")
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # the API sends JSON text; templates write the object themselves
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except ValueError as error:
            raise InputError(f"{place}: arguments are not JSON: {error}") from None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise InputError(f"{place}: arguments are {type(arguments).__name__}, expected an object")
    return ToolCall(function["name"], dict(arguments), _optional_text(call.get("id"), f"{place}.id"))


def _optional_text(value: Any, place: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{place}: {type(value).__name__} is not a string")
    return value
