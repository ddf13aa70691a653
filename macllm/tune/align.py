"""Turns a text with spans of characters into token ids with a mask: which ids spell the spans, and no others.

Each id's place follows from its own bytes: one after the other they spell the text, which is exact for every kind
of tokenizer. What encoding changes is known: the space that SentencePiece puts at a start, the white space that
some special tokens swallow, Unicode's normal forms. A text that its ids do not spell is refused.
"""

import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from macllm.tokenizer import Tokenizer
from macllm.tune.schema import RowError

Ids: TypeAlias = NDArray[np.int32]  # (T,)
Mask: TypeAlias = NDArray[np.bool_]  # (T,)
_Places: TypeAlias = NDArray[np.int64]  # (T,) bytes of the text

_BLANK = b" \t\r\n\v\f"


def encode_spans(tokenizer: Tokenizer, text: str, spans: Sequence[tuple[int, int]]) -> tuple[Ids, Mask]:
    """Ids of ``text`` as a chat's are made, with one BOS where the model wants one, and those that spell ``spans``.

    Where one token would spell the end of a prompt and the start of an answer, the text is encoded in two parts:
    at generation the prompt is encoded alone too. Raises RowError where ids and text cannot be aligned.
    """
    if spans:
        ids, mask = _masked(tokenizer, text, spans)
    else:
        ids = tokenizer.encode(text)
        mask = np.zeros(len(ids), dtype=np.bool_)
    if tokenizer.bos_id is not None and tokenizer.adds_bos and ids[:1] != [tokenizer.bos_id]:
        ids, mask = [tokenizer.bos_id, *ids], np.concatenate([[False], mask])
    return np.array(ids, dtype=np.int32), mask


def _masked(tokenizer: Tokenizer, text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[int], Mask]:
    """The ids alone, and those whose bytes lie inside ``spans``."""
    borders = sorted({border for span in spans for border in span})
    ids = tokenizer.encode(text)
    cuts, starts, ends = _aligned(tokenizer, ids, text, borders)
    across = [
        border for border, cut in zip(borders, cuts, strict=True) if ((starts < cut) & (cut < ends)).any()
    ]
    if across:
        limits = zip([0, *across], [*across, len(text)], strict=True)
        ids = [token for start, end in limits for token in tokenizer.encode(text[start:end])]
        cuts, starts, ends = _aligned(tokenizer, ids, text, borders)
        if any(((starts < cut) & (cut < ends)).any() for cut in cuts):
            raise RowError("a token lies across the border of the assistant's turn; leave the row out")
    at = dict(zip(borders, cuts, strict=True))
    mask = np.zeros(len(ids), dtype=np.bool_)
    for first, last in ((at[start], at[end]) for start, end in spans):
        mask |= (first <= starts) & (starts < last) & (ends <= last)
    return ids, mask


def _aligned(
    tokenizer: Tokenizer, ids: Sequence[int], text: str, borders: Sequence[int]
) -> tuple[list[int], _Places, _Places]:
    """Where ``borders`` (characters) lie in the bytes that ids spell, and where each id starts and ends in them."""
    for form in (None, "NFC", "NFKC"):
        changed = text if form is None else unicodedata.normalize(form, text)
        heads = [text[:at] if form is None else unicodedata.normalize(form, text[:at]) for at in borders]
        if form is not None and not all(changed.startswith(head) for head in heads):
            continue  # a character forms across a border
        data = changed.encode()
        places = _places(tokenizer, ids, data)
        if places is not None:
            return [len(head.encode()) for head in heads], *places
    raise RowError(
        "the tokenizer changes this text, so what is learned cannot be found in it; leave the row out"
    )


def _places(tokenizer: Tokenizer, ids: Sequence[int], data: bytes) -> tuple[_Places, _Places] | None:
    """Where each id starts and ends in ``data``; None where the ids do not spell it."""
    starts, ends, at = [], [], 0
    spaced = swallowed = (
        True  # at a start, and behind special tokens, a space may be added, or white space left out
    )
    for token in ids:
        piece, special = tokenizer.token_bytes(token), token in tokenizer.special_ids
        if not data.startswith(piece, at):
            if spaced and not special and piece[:1] == b" " and data.startswith(piece[1:], at):
                piece = piece[1:]
            elif special or swallowed:
                at = _past_blank(data, at)
            if not data.startswith(piece, at):
                return None
        starts.append(at)
        at += len(piece)
        ends.append(at)
        swallowed = special
        spaced = special or (spaced and not piece.strip(_BLANK))
    if swallowed:
        at = _past_blank(data, at)
    return (np.array(starts), np.array(ends)) if at == len(data) else None


def _past_blank(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in _BLANK:
        at += 1
    return at
