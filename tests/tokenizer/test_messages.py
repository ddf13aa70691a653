"""Messages from OpenAI-style dicts; what cannot be represented is refused by place and name."""

from typing import Any

import pytest

from macllm.errors import InputError
from macllm.tokenizer.messages import Message, TextPart, ToolCall, to_messages


def test_a_string_is_a_user_message() -> None:
    assert to_messages("Hi") == (Message("user", (TextPart("Hi"),)),) == (Message.of("user", "Hi"),)


def test_dicts_and_messages_may_be_mixed() -> None:
    part = {"type": "text", "text": "b"}
    found = to_messages([Message.of("system", "s"), {"role": "user", "content": ["a", part]}])
    assert [message.text for message in found] == ["s", "ab"]
    assert len(found[1].parts) == 2


def test_a_tool_conversation() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    found = to_messages(
        [
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "add them"},
            {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
        ]
    )
    assert found[0] == Message(
        "assistant", (), tool_calls=(ToolCall("add", {"a": 1}, "c1"),), reasoning="add them"
    )
    assert (found[1].tool_call_id, found[1].name) == ("c1", "add")


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_under_any_of_its_names(key: str) -> None:
    assert to_messages([{"role": "assistant", "content": "a", key: "r"}])[0].reasoning == "r"


@pytest.mark.parametrize("arguments", [None, "", "{}", {}])
def test_a_call_without_arguments(arguments: Any) -> None:
    call = {"function": {"name": "now", "arguments": arguments}}
    assert to_messages([{"role": "assistant", "tool_calls": [call]}])[0].tool_calls == (ToolCall("now"),)


IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
BAD: list[tuple[Any, str]] = [
    ({"role": "user"}, r"messages: dict is not a list"),
    (b"Hi", r"messages: bytes is not a list"),
    ([3], r"messages\[0\]: int is not a message"),
    ([{"content": "x"}], r"messages\[0\]: role=None is not a role"),
    ([{"role": "user", "content": 3}], r"messages\[0\]\.content: int is not text"),
    (
        [{"role": "user", "content": [IMAGE]}],
        r"messages\[0\]\.content\[0\]: a part of type 'image_url' is not supported",
    ),
    ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\]: text=None is not a string"),
    ([{"role": "user", "content": "x", "images": ["y"]}], r"messages\[0\]: key 'images' is not supported"),
    ([{"role": "assistant", "tool_calls": {}}], r"tool_calls: dict is not a list"),
    ([{"role": "assistant", "tool_calls": [{"id": "x"}]}], r"tool_calls\[0\]: a tool call needs a function"),
    ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}], r"arguments are not JSON"),
    (
        [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}],
        r"arguments are list, expected",
    ),
    ([{"role": "tool", "content": "x", "tool_call_id": 7}], r"tool_call_id: int is not a string"),
]


@pytest.mark.parametrize(("prompt", "message"), BAD)
def test_what_is_refused(prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_messages(prompt)
