"""From a checked row to examples: token ids, and which of them are learned.

Source of the formats: mlx-lm's tuner/datasets.py. Unlike there, every assistant turn may be learned, and the token
that ends it always is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from macllm.errors import OptionError, TokenizerError
from macllm.tokenizer import Message, Tokenizer
from macllm.tune.align import Ids, Mask, encode_spans
from macllm.tune.keys import parse
from macllm.tune.masks import Span, Talk
from macllm.tune.schema import Row, RowError, teaches
from macllm.tune.settings import LEARN, Learn

_REACH = 8  # characters a token: more than it has, but for a rare text
SHORTEST = 8  # tokens a row may have at least, as settings.py has it


@dataclass(frozen=True)
class ExampleSettings:
    """How rows become examples.

    ``learn`` the assistant's turns, the last of them, or all tokens. A text is learned whole, an answer that is
    preferred, rejected or labelled always alone. ``date`` (ISO) is what templates may write for today's. ``keys`` as
    :func:`macllm.tune.keys.parse` reads them.
    """

    max_seq_length: int
    learn: Learn
    date: str
    keys: str = ""

    def __post_init__(self) -> None:
        if self.max_seq_length < SHORTEST:
            raise OptionError(
                f"max_seq_length={self.max_seq_length} is not possible (expected at least {SHORTEST})"
            )
        if self.learn not in LEARN:
            raise OptionError(f"learn={self.learn!r} is not possible (expected {', '.join(LEARN)})")
        parse(self.keys)

    @property
    def now(self) -> datetime:
        return datetime.fromisoformat(self.date)


@dataclass(frozen=True, eq=False)
class Example:
    """Token ids (T,), and which of them are learned (T,): ``learned[t]`` where id t is predicted from those before.

    The first is never learned. ``place`` is the row's ``file:line``; ``truncated`` where the row was longer.
    ``label``: whether the answer is wanted (true) or not; None where the row says nothing of it. Of a prompt alone
    nothing is learned, and ``raw`` is its row as JSON.
    """

    ids: Ids
    learned: Mask
    place: str
    truncated: bool = False
    label: bool | None = None
    raw: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> int:
        """Tokens that count in the loss."""
        return int(self.learned.sum())

    @property
    def prompt(self) -> int:
        """Tokens before the first that is learned."""
        return int(self.learned.argmax()) if self.learned.any() else len(self)


def examples_of(row: Row, place: str, tokenizer: Tokenizer, settings: ExampleSettings) -> tuple[Example, ...]:
    """One example, or the chosen (labelled true) and the rejected one of a preference row, which share their prompt.

    Raises RowError with one sentence where the row cannot be taught.
    """
    if row.schema == "text":
        return (_cut(*_text(row.text, tokenizer), place, settings),)
    if row.schema == "prompt":
        return (_prompt(row, place, tokenizer, settings),)
    learn: Learn = settings.learn
    if row.schema in ("messages", "completion"):
        messages = (*row.messages, *row.answer)
        first = len(row.messages) if row.schema == "completion" else 0
        return (_cut(*_chat(row, messages, first, tokenizer, settings, learn), place, settings),)
    learn = "turns" if learn == "all" else learn
    judged = [(row.answer, True), (row.rejected, False)]
    shared = len(row.messages) or _shared(row.answer, row.rejected)
    if row.schema == "labelled":
        judged, shared = [(row.answer, row.label)], len(row.messages)
    examples = tuple(
        _cut(
            *_chat(row, (*row.messages, *answer), shared, tokenizer, settings, learn), place, settings, label
        )
        for answer, label in judged
    )
    if row.schema == "labelled":
        return examples
    chosen, rejected = examples
    if chosen.prompt != rejected.prompt or not np.array_equal(
        chosen.ids[: chosen.prompt], rejected.ids[: rejected.prompt]
    ):
        raise RowError(
            "'chosen' and 'rejected' do not answer the same prompt; give both the same messages before"
        )
    return examples


def pieces(tokenizer: Tokenizer, example: Example) -> list[tuple[str, bool]]:
    """The example as text, cut where what is learned begins and ends; each part with whether it is learned."""
    found: list[tuple[str, bool]] = []
    borders = [0, *(int(at) for at in np.flatnonzero(np.diff(example.learned)) + 1), len(example)]
    for start, end in pairwise(borders):
        ids = example.ids[start:end].tolist()
        data = b"".join(tokenizer.token_bytes(token) for token in ids).decode("utf-8", "replace")
        found.append((tokenizer.decode(ids) if start == 0 else data, bool(example.learned[start])))
    return found


def _text(text: str, tokenizer: Tokenizer) -> tuple[Ids, Mask]:
    """A text with what the tokenizer puts around one, and the token that ends it."""
    ids = tokenizer.encode(text, add_special_tokens=True)
    if tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2:
        ids = ids[1:]  # the text brought its own
    end = _end_token(tokenizer)
    ids += [end] if end is not None and ids[-1:] != [end] else []
    return np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=np.bool_)


def _prompt(row: Row, place: str, tokenizer: Tokenizer, settings: ExampleSettings) -> Example:
    """A prompt as the model is given it, up to where it answers."""
    try:
        ids = tokenizer.encode_chat(row.messages, tools=row.tools or None, now=settings.now)
    except TokenizerError as error:
        raise RowError(str(error)) from None
    if len(ids) > settings.max_seq_length:
        raise RowError(
            f"the prompt has {len(ids)} tokens, more than max_seq_length={settings.max_seq_length}; raise it or"
            " shorten the row"
        )
    return Example(np.array(ids, np.int32), np.zeros(len(ids), np.bool_), place, raw=row.raw)


def _chat(
    row: Row,
    messages: Sequence[Message],
    first: int,
    tokenizer: Tokenizer,
    settings: ExampleSettings,
    learn: Learn,
) -> tuple[Ids, Mask]:
    """Ids of a conversation, and which belong to the turns to learn from, those from message ``first`` on."""
    talk = Talk(tokenizer, tuple(messages), row.tools, settings.now)
    text = talk.text()
    turns = [index for index in range(first, len(messages)) if teaches(messages[index])]
    wanted = [] if learn == "all" else turns[-1 if learn == "last" else 0 :]
    limit = settings.max_seq_length
    spans = _spans(talk, text, wanted, _REACH * limit)
    ids, mask = encode_spans(tokenizer, text, spans)
    if (
        len(spans) < len(wanted) and not mask[limit:].any()
    ):  # what was not looked for may lie within the limit
        spans = _spans(talk, text, wanted, len(text))
        ids, mask = encode_spans(tokenizer, text, spans)
    if learn == "all":
        mask[:] = True
    # a format without a token that ends a turn ends a conversation with the one that ends a text
    end = _end_token(tokenizer)
    whole = learn == "all" or bool(spans and spans[-1][1] == len(text))
    if whole and end is not None and teaches(messages[-1]) and not talk.ends_itself(text.rstrip()):
        ids, mask = np.append(ids, np.int32(end)), np.append(mask, True)
    return ids, mask


def _spans(talk: Talk, text: str, turns: Sequence[int], reach: int) -> list[Span]:
    """Where ``turns`` lie in ``text``, up to the first that begins behind ``reach``: finding one is not cheap."""
    spans: list[Span] = []
    for index in turns:
        spans.append(talk.turn(index, text))
        if spans[-1][0] > reach:
            break
    return spans


def _cut(ids: Ids, mask: Mask, place: str, settings: ExampleSettings, label: bool | None = None) -> Example:
    """The example without what nothing is learned from, cut to the longest that is allowed."""
    mask[:1] = False  # nothing comes before the first token
    if not mask.any():
        raise RowError("there is no token to learn from in it")
    first, last = int(mask.argmax()), len(mask) - int(mask[::-1].argmax())
    limit = settings.max_seq_length
    if first >= limit:
        raise RowError(
            f"nothing to learn is left of it within {limit} tokens: the first answer begins after {first};"
            " raise max_seq_length or shorten the row"
        )
    kept = min(last, limit)
    return Example(ids[:kept].copy(), mask[:kept].copy(), place, last > limit, label)


def _shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many messages two conversations have in common at their start."""
    pairs = list(zip(one, other, strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _end_token(tokenizer: Tokenizer) -> int | None:
    name = tokenizer.profile.special_tokens.get("eos_token")
    return tokenizer.token_to_id(name) if name is not None else None
