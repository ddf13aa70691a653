"""What layers remember of the tokens they have seen, whatever its kind. Every cache rewinds exactly.

A cache holds one batch of sequences; rows of different lengths end together, with ``padding`` (B,) tokens before
the shorter ones. ``offset`` counts the tokens seen, padding included. Arrays are never changed in place once
shared, so a copy costs nothing.
"""

from collections.abc import Sequence
from typing import Protocol, Self

import mlx.core as mx

from macllm.nn.kv_cache import FullCache, SlidingCache
from macllm.nn.quantized_kv_cache import PackedView, QuantizedFullCache, QuantizedSlidingCache
from macllm.nn.state_cache import StateCache
from macllm.nn.token_cache import TokenCache
from macllm.spec import CacheSpec, KeyValues, ModelSpec, State, Tokens


class Cache(Protocol):
    """What the engine needs of a cache."""

    @property
    def offset(self) -> int:
        """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes of what the next token will look at."""

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the buffers behind it."""

    def rewindable(self) -> int:
        """How many of the last tokens can be dropped with the rest left as if they had never been."""

    def rewind(self, tokens: int) -> None:
        """Drops the last ``tokens``. Raises ValueError beyond :meth:`rewindable`."""

    def copy(self) -> Self:
        """An independent cache with the same content, sharing buffers until either grows."""

    def arrays(self) -> list[mx.array]:
        """The buffers, to be evaluated; empty before the first update."""


class LayerCache(Cache, Protocol):
    """A cache of a native model."""

    padding: mx.array | None

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        """All that it holds, by name: arrays and numbers."""

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        """Takes over the :meth:`content` of another of its kind."""


class PackedCache(LayerCache, Protocol):
    """A cache of packed keys and values."""

    def update(self, keys: mx.array, values: mx.array) -> PackedView:
        """Appends (B, H, L, D) and returns all keys and values in view, packed."""


class AttentionCache(LayerCache, Protocol):
    """A cache of keys and values."""

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Appends (B, H, L, D) and returns all keys and values in view, oldest first."""


def make_caches(
    spec: ModelSpec, padding: Sequence[int] | None = None, kv_bits: int | None = None
) -> list[LayerCache]:
    """The empty caches of ``spec``, layer by layer; ``padding`` counts the tokens before each row that are none.

    Keys and values that may be packed are, in ``kv_bits`` (None: none are).
    """
    before = mx.array(list(padding)) if padding is not None and any(padding) else None
    return [_cache(cache, before, kv_bits) for cache in spec.caches]


def _cache(spec: CacheSpec, padding: mx.array | None, bits: int | None) -> LayerCache:
    match spec:
        case KeyValues(packable=True) if bits is not None:
            if spec.reach is None:
                return QuantizedFullCache(bits, padding)
            return QuantizedSlidingCache(bits, spec.reach, padding)
        case KeyValues():
            return FullCache(padding) if spec.reach is None else SlidingCache(spec.reach, padding)
        case State():
            return StateCache(padding)
        case Tokens(first):
            return TokenCache(first, padding)
