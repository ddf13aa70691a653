"""Which keys a query may see, in the form that attention takes fastest."""

from typing import Literal, TypeAlias

import mlx.core as mx

Mask: TypeAlias = mx.array | Literal["causal"] | None


def attention_mask(queries: int, keys: int, window: int | None) -> Mask:
    """The mask of the last ``queries`` of ``keys`` positions: causal, and no further back than ``window``.

    None where every query sees every key; "causal" where only the future is hidden; else booleans
    (queries, keys), True where seen.
    """
    if queries == 1:
        return None if window is None or keys <= window else banded(1, keys, window)
    if window is None or keys <= window:
        return "causal"
    return banded(queries, keys, window)


def banded(queries: int, keys: int, window: int) -> mx.array:
    """Booleans (queries, keys): True at the query's own position and the ``window - 1`` before it."""
    query = mx.arange(keys - queries, keys)[:, None]
    key = mx.arange(keys)[None]
    return (key <= query) & (key > query - window)
