"""Makes a conversation fit: leaves out its oldest turns, never the system message, never the last question."""

from collections.abc import Callable, Sequence

from macllm.tokenizer.messages import Message

INSTRUCTIONS = ("system", "developer")


def drop_oldest(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], room: int
) -> tuple[Message, ...]:
    """``messages`` without as few of the oldest turns as bring ``count`` down to ``room`` tokens.

    A turn is a user's message with the replies that follow it; what stands before the first is one too. The
    last is kept even where it alone is too long. ``count`` is asked about log2(turns) times, so it must not
    grow when a turn is left out.
    """
    if count(messages) <= room:
        return tuple(messages)
    fewest, most = 1, turns(messages) - 1
    while fewest < most:
        middle = (fewest + most) // 2
        if count(without(messages, middle)) <= room:
            most = middle
        else:
            fewest = middle + 1
    return without(messages, most)


def turns(messages: Sequence[Message]) -> int:
    """How many turns there are."""
    numbers = [turn for turn in _numbered(messages) if turn is not None]
    return numbers[-1] + 1 if numbers else 0


def without(messages: Sequence[Message], dropped: int) -> tuple[Message, ...]:
    """``messages`` less the ``dropped`` oldest turns."""
    numbered = zip(messages, _numbered(messages), strict=True)
    return tuple(message for message, turn in numbered if turn is None or turn >= dropped)


def _numbered(messages: Sequence[Message]) -> list[int | None]:
    """The turn that each message belongs to; None of instructions, which belong to all."""
    numbers: list[int | None] = []
    turn, started = 0, False
    for message in messages:
        if message.role in INSTRUCTIONS:
            numbers.append(None)
            continue
        if message.role == "user" and started:
            turn += 1
        started = True
        numbers.append(turn)
    return numbers
