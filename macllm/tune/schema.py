"""Reads one training row strictly: which of the six schemas it is in, and what in it could not be taught.

Nothing is guessed: a row that could be two things, or nearly one, is refused in a sentence that says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from macllm.errors import InputError
from macllm.tokenizer.messages import Message, to_messages
from macllm.tune.keys import Renamed, rename

Schema: TypeAlias = Literal["messages", "completion", "text", "preference", "labelled", "prompt"]

ROLES = ("system", "developer", "user", "assistant", "tool")
_EXPECTED = (
    "'messages', 'prompt' with 'completion' (and 'label'), 'text', 'chosen' with 'rejected', or 'prompt'"
)
_LONGEST_REASON = 300  # characters; a reason may quote what was found
_IMAGE_KEYS = ("image", "images", "image_url", "pixel_values")
_IMAGE_PARTS = ("image", "image_url", "input_image")
_FOREIGN_KEYS = {  # keys of other tools' formats, and what to do with them
    "conversations": "name it with keys=conversations=messages",
    "conversation": "name it with keys=conversation=messages",
    "instruction": "name them with keys=instruction=prompt,output=completion (instruction+input=prompt joins two)",
    "question": "name them with keys=question=prompt,answer=completion",
    "input": "name them with keys=input=prompt,output=completion",
    "content": "name it with keys=content=text",
    "completion": "add its 'prompt'",
    "chosen": "add what was 'rejected'",
    "rejected": "add what was 'chosen'",
}
_SHAREGPT = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


class RowError(InputError):
    """A row cannot be used. ``whole_file``: the file is not JSONL at all, so its other lines say nothing new."""

    def __init__(self, reason: str, *, whole_file: bool = False) -> None:
        super().__init__(reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 1]}…")
        self.whole_file = whole_file


@dataclass(frozen=True)
class Row:
    """One checked row: messages for all schemas but ``text``.

    ``messages`` are the prompt's, ``answer`` what is learned and ``rejected`` what it is preferred to. ``label``:
    whether the answer of a labelled row is wanted. ``raw``: a prompt's row as JSON, for what judges its answers.
    """

    schema: Schema
    messages: tuple[Message, ...] = ()
    answer: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    text: str = ""
    label: bool = False
    raw: str = ""

    @property
    def characters(self) -> int:
        """Length of all text of it."""
        told = (*self.messages, *self.answer, *self.rejected)
        return len(self.text) + sum(len(message.text) + len(message.reasoning or "") for message in told)

    def render(self) -> str:
        """As a person reads it: who says what."""
        if self.schema == "text":
            return self.text
        parts = [f"tools: {', '.join(_tool_name(tool) or '?' for tool in self.tools)}"] if self.tools else []
        if self.schema == "preference":
            parts += [*map(_said, self.messages), "chosen:", *map(_said, self.answer)]
            parts += ["rejected:", *map(_said, self.rejected)]
        else:
            parts += map(_said, (*self.messages, *self.answer))
        if self.schema == "labelled":
            parts.append(f"label: {str(self.label).lower()}")
        return "\n".join(parts)


def read_row(line: str, keys: Sequence[Renamed] = ()) -> Row:
    """The row that a line of JSONL holds, under other ``keys``. Raises RowError with one sentence."""
    try:
        raw = rename(_object(line), keys)
    except RowError:
        raise
    except InputError as error:
        raise RowError(str(error)) from None
    found = next((key for key in _IMAGE_KEYS if raw.get(key)), None)
    if found is not None:
        raise RowError(f"'{found}' holds images, which cannot be taught yet; leave out rows with images")
    kinds = _schemas(raw)
    if len(kinds) > 1:
        raise RowError(f"it could be {' or '.join(map(repr, kinds))}; leave the keys of one of them")
    if not kinds:
        raise RowError(_unknown(raw))
    return _READERS[kinds[0]](raw)


def _object(line: str) -> Mapping[str, Any]:
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        if line in ("[", "{") or line.startswith("[{"):
            raise RowError(
                "this is JSON over several lines, not JSONL; write one object a line", whole_file=True
            ) from None
        raise RowError(f"this is not valid JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError):  # a number with thousands of digits; a million brackets
        raise RowError("this JSON is nested or numbered beyond reading; correct it") from None
    if isinstance(raw, list):
        raise RowError("this is a JSON array, not an object; write one object a line")
    if not isinstance(raw, dict):
        raise RowError(f"this is {_kind(raw)}, not a JSON object with {_EXPECTED}")
    if "\\ud" in line.lower():  # only escapes can bring half a character into valid UTF-8
        _refuse_surrogates(raw)
    return raw


def _refuse_surrogates(raw: Mapping[str, Any]) -> None:
    try:
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.start + 1]
        raise RowError(f"\\u{ord(half):04x} is half a character; write the whole one") from None


def _schemas(raw: Mapping[str, Any]) -> list[Schema]:
    kinds: list[Schema] = []
    if "messages" in raw:
        kinds.append("messages")
    if "prompt" in raw and "completion" in raw:
        kinds.append("labelled" if "label" in raw else "completion")
    if "text" in raw:
        kinds.append("text")
    if "chosen" in raw and "rejected" in raw:
        kinds.append("preference")
    if not kinds and "prompt" in raw and not any(key in raw for key in ("completion", "chosen", "rejected")):
        kinds.append("prompt")
    return kinds


def _unknown(raw: Mapping[str, Any]) -> str:
    if not raw:
        return f"the object is empty (expected {_EXPECTED})"
    hint = next((remedy for key, remedy in _FOREIGN_KEYS.items() if key in raw), None)
    keys = ", ".join(repr(key) for key in list(raw)[:6])
    return f"its keys {keys} are no schema; {hint}" if hint else f"its keys are {keys} (expected {_EXPECTED})"


def _chat(raw: Mapping[str, Any]) -> Row:
    messages = _messages(raw["messages"], "messages")
    if not any(teaches(message) for message in messages):
        raise RowError(
            "there is no assistant message with text or a tool call; there is nothing to learn from it"
        )
    return Row("messages", messages=messages, tools=_tools(raw.get("tools")))


def _completion(raw: Mapping[str, Any]) -> Row:
    prompt, answer = (
        _said_by(raw["prompt"], "user", "prompt"),
        _said_by(raw["completion"], "assistant", "completion"),
    )
    if not any(teaches(message) for message in answer):
        raise RowError("'completion' is empty; there is nothing to learn from it")
    return Row("completion", messages=prompt, answer=answer, tools=_tools(raw.get("tools")))


def _labelled(raw: Mapping[str, Any]) -> Row:
    label = raw["label"]
    if not isinstance(label, bool):
        raise RowError(
            f"'label' is {_kind(label)}, not true (a wanted answer) or false; correct it, or leave the key out"
        )
    return replace(_completion(raw), schema="labelled", label=label)


def _text(raw: Mapping[str, Any]) -> Row:
    text = raw["text"]
    if not isinstance(text, str):
        raise RowError(f"'text' is {_kind(text)}, not a string")
    if not text.strip():
        raise RowError("'text' is empty; there is nothing to learn from it")
    return Row("text", text=text)


def _preference(raw: Mapping[str, Any]) -> Row:
    prompt = _said_by(raw["prompt"], "user", "prompt") if raw.get("prompt") is not None else ()
    chosen = _said_by(raw["chosen"], "assistant", "chosen")
    rejected = _said_by(raw["rejected"], "assistant", "rejected")
    for key, told in (("chosen", chosen), ("rejected", rejected)):
        if not any(teaches(message) for message in told):
            raise RowError(f"'{key}' has no assistant text; there is nothing to compare")
    if not prompt and (len(chosen) < 2 or len(rejected) < 2):
        raise RowError("'prompt' is missing and 'chosen' and 'rejected' are no whole conversations; add it")
    if chosen == rejected:
        raise RowError("'chosen' and 'rejected' are the same; there is nothing to prefer")
    return Row(
        "preference", messages=prompt, answer=chosen, rejected=rejected, tools=_tools(raw.get("tools"))
    )


def _prompt(raw: Mapping[str, Any]) -> Row:
    prompt = _said_by(raw["prompt"], "user", "prompt")
    if not any(message.text.strip() for message in prompt):
        raise RowError("'prompt' is empty; there is nothing to answer")
    told = json.dumps(raw, ensure_ascii=False)
    return Row("prompt", messages=prompt, tools=_tools(raw.get("tools")), raw=told)


_READERS = {
    "messages": _chat,
    "completion": _completion,
    "text": _text,
    "preference": _preference,
    "labelled": _labelled,
    "prompt": _prompt,
}


def _said_by(value: Any, role: str, key: str) -> tuple[Message, ...]:
    """A string that ``role`` says, or messages."""
    if isinstance(value, str):
        return (Message.of(role, value),)
    if not isinstance(value, list):
        raise RowError(f"'{key}' is {_kind(value)}, not a string or a list of messages")
    return _messages(value, key)


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RowError(f"'{key}' is {_kind(value)}, not a list of messages")
    if not value:
        raise RowError(f"'{key}' is an empty list; there is nothing to learn from it")
    for index, item in enumerate(value):
        _refuse_images(item, f"{key}[{index}]")
    value = [_from_sharegpt(item, f"{key}[{index}]") for index, item in enumerate(value)]
    try:
        messages = to_messages(value)
    except InputError as error:
        raise RowError(str(error).replace("messages[", f"{key}[", 1)) from None
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            raise RowError(
                f"{key}[{index}]: role {message.role!r} is not known (expected {', '.join(ROLES)})"
            )
    return messages


def _from_sharegpt(item: Any, place: str) -> Any:
    """The message that a ShareGPT one is, where it says no more than who says what; others as they are."""
    if not isinstance(item, Mapping) or "from" not in item or "role" in item:
        return item
    more = next((key for key in item if key not in ("from", "value")), None)
    if more is not None:
        raise RowError(
            f"{place}: {more!r} beside 'from' and 'value' says something that is not read; leave it out"
        )
    if not isinstance(item["from"], str) or item["from"] not in _SHAREGPT:
        raise RowError(
            f"{place}: from={item['from']!r} is none of {', '.join(_SHAREGPT)}; write the message with 'role' and"
            " 'content'"
        )
    if not isinstance(item.get("value"), str):
        raise RowError(f"{place}: 'value' is {_kind(item.get('value'))}, not a string")
    return {"role": _SHAREGPT[item["from"]], "content": item["value"]}


def _refuse_images(item: Any, place: str) -> None:
    content = item.get("content") if isinstance(item, Mapping) else None
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _IMAGE_PARTS:
            raise RowError(
                f"{place}: it holds an image ({kind!r}), which cannot be taught yet; leave the row out"
            )


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError(f"'tools' is {_kind(value)}, not a list of functions")
    for index, tool in enumerate(value):
        if _tool_name(tool) is None:
            raise RowError(f"tools[{index}]: it has no function with a name")
    return tuple(value)


def _tool_name(tool: Any) -> str | None:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None


def teaches(message: Message) -> bool:
    """Whether there is something to learn from the message: an assistant's text or tool call."""
    return message.role == "assistant" and bool(message.text.strip() or message.tool_calls)


def _said(message: Message) -> str:
    calls = [f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})" for call in message.tool_calls]
    thought = [f"({message.reasoning})"] if message.reasoning else []
    return f"{message.role}: " + " ".join([*thought, *([message.text] if message.text else []), *calls])


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, Sequence) else "an object"
