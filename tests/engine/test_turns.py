"""Leaving out the oldest turns: what is kept, that it is no more than needed, and that little is counted."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from macllm.engine.turns import drop_oldest, turns, without
from macllm.tokenizer.messages import Message

MESSAGES = st.lists(
    st.builds(
        Message.of, st.sampled_from(["system", "user", "user", "assistant", "tool"]), st.text(max_size=9)
    ),
    max_size=20,
)


def length(messages: Sequence[Message]) -> int:
    return sum(len(message.text) + 2 for message in messages)


def roles(messages: Sequence[Message]) -> str:
    return "".join(message.role[0] for message in messages)


def conversation(text: str) -> tuple[Message, ...]:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return tuple(Message.of(names[letter], "x" * 8) for letter in text)


def test_a_turn_goes_with_all_its_replies() -> None:
    talk = conversation("suaatuaua")
    assert [roles(without(talk, dropped)) for dropped in range(4)] == ["suaatuaua", "suaua", "sua", "s"]
    assert turns(talk) == 3


def test_what_stands_before_the_first_question_is_a_turn() -> None:
    assert roles(without(conversation("saaua"), 1)) == "sua"


@given(MESSAGES, st.integers(0, 200))
def test_as_few_as_needed_are_left_out_and_the_last_turn_never(messages: list[Message], room: int) -> None:
    kept = drop_oldest(messages, length, room)
    options = [without(messages, dropped) for dropped in range(max(1, turns(messages)))]
    assert kept == next((option for option in options if length(option) <= room), options[-1])
    assert [m for m in kept if m.role == "system"] == [m for m in messages if m.role == "system"]
    questions = [message for message in messages if message.role == "user"]
    if questions:
        assert questions[-1] in kept


def test_a_long_conversation_is_counted_a_few_times() -> None:
    counted = 0

    def count(messages: Sequence[Message]) -> int:
        nonlocal counted
        counted += 1
        return length(messages)

    talk = conversation("s" + "ua" * 1000)
    assert length(drop_oldest(talk, count, 1000)) <= 1000
    assert counted <= 12
