"""Key/value caches: what a layer remembers of the tokens it has seen. Every one rewinds exactly.

A cache holds one batch of sequences. ``offset`` counts the tokens seen, ``update`` appends keys and values and
returns what attention may look at. Arrays are never changed in place once shared, so a copy costs nothing.
"""

import copy
from typing import Protocol, Self

import mlx.core as mx

from macllm.sizes import KEPT_WINDOWS
from macllm.spec import ModelSpec

_STEP = 256  # buffers grow by at least this many tokens


class Cache(Protocol):
    """What the engine needs of a layer's cache."""

    @property
    def offset(self) -> int:
        """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values that attention can see."""

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the buffers behind them."""

    def rewindable(self) -> int:
        """How many of the last tokens can be dropped with the rest left as if they had never been."""

    def rewind(self, tokens: int) -> None:
        """Drops the last ``tokens``. Raises ValueError beyond :meth:`rewindable`."""

    def copy(self) -> Self:
        """An independent cache with the same content, sharing buffers until either grows."""

    def arrays(self) -> list[mx.array]:
        """The buffers, to be evaluated or saved; empty before the first update."""


class AttentionCache(Cache, Protocol):
    """A cache of keys and values."""

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Appends (B, H, L, D) and returns all keys and values in view, oldest first."""

    def in_view(self, tokens: int) -> int:
        """Length of what ``update`` with ``tokens`` more will return."""


class _Buffers:
    """Two growing buffers (B, H, capacity, D)."""

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    @property
    def allocated_bytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays())

    def arrays(self) -> list[mx.array]:
        return [array for array in (self.keys, self.values) if array is not None]

    def copy(self) -> Self:
        twin = copy.copy(self)
        # slice updates write into a buffer that has one owner, so the twin needs arrays of its own
        twin.keys = mx.array(self.keys) if self.keys is not None else None
        twin.values = mx.array(self.values) if self.values is not None else None
        return twin

    def _bytes_of(self, tokens: int) -> int:
        capacity = self.keys.shape[2] if self.keys is not None else 1
        return self.allocated_bytes * tokens // capacity

    def _move(self, new: mx.array, old: mx.array | None, first: int, last: int, capacity: int) -> mx.array:
        """A buffer of ``capacity`` like ``new`` that starts with ``old[first:last]``."""
        batch, heads, _, width = new.shape
        kept = [] if old is None else [old[..., first:last, :]]
        room = capacity - (last - first)
        return mx.concatenate([*kept, mx.zeros((batch, heads, room, width), new.dtype)], axis=2)


class FullCache(_Buffers):
    """All tokens, for full attention."""

    @property
    def nbytes(self) -> int:
        return self._bytes_of(self.offset)

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        start, end = self.offset, self.offset + keys.shape[2]
        if self.keys is None or self.values is None or end > self.keys.shape[2]:
            capacity = -(-max(end, end * 9 // 8) // _STEP) * _STEP
            self.keys = self._move(keys, self.keys, 0, start, capacity)
            self.values = self._move(values, self.values, 0, start, capacity)
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        self.offset = end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def in_view(self, tokens: int) -> int:
        return self.offset + tokens

    def rewindable(self) -> int:
        return self.offset

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} of {self.offset} tokens")
        self.offset -= tokens


class SlidingCache(_Buffers):
    """The last ``window`` tokens, and as many before them so that rewinding within a window stays exact.

    A linear buffer in order of time: when full, its tail moves to the front. In view are the new tokens and
    the ``window - 1`` before the first of them.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self._base = 0  # position of the token at the buffer's start

    @property
    def nbytes(self) -> int:
        return self._bytes_of(min(self.offset, self.window))

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        new = keys.shape[2]
        start, end = self.offset, self.offset + new
        if self.keys is None or self.values is None or end - self._base > self.keys.shape[2]:
            keep = max(self._base, start - KEPT_WINDOWS * self.window)
            capacity = -(-(end - keep + min(self.window, _STEP)) // _STEP) * _STEP
            span = (keep - self._base, start - self._base, capacity)
            self.keys = self._move(keys, self.keys, *span)
            self.values = self._move(values, self.values, *span)
            self._base = keep
        start, end = start - self._base, end - self._base
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        first = end - self.in_view(new)
        self.offset += new
        return self.keys[..., first:end, :], self.values[..., first:end, :]

    def in_view(self, tokens: int) -> int:
        return min(self.offset, self.window - 1) + tokens

    def rewindable(self) -> int:
        if self._base == 0:
            return self.offset
        return max(0, self.offset - self._base - (self.window - 1))

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} tokens of a window of {self.window}")
        self.offset -= tokens


def make_caches(spec: ModelSpec) -> list[AttentionCache]:
    """An empty cache for each layer of ``spec``."""
    windows = (layer.mixer.window for layer in spec.layers)
    return [SlidingCache(window) if window is not None else FullCache() for window in windows]
