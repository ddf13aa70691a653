"""Caches of keys and values: of every token, or of those that a window or a chunk leaves in reach."""

import copy
from typing import Self

import mlx.core as mx

from macllm.sizes import KEPT_WINDOWS

_STEP = 256  # buffers grow by at least this many tokens


class _Buffers:
    """Two growing buffers (B, H, capacity, D), whose D may differ."""

    def __init__(self, padding: mx.array | None = None) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0
        self.padding = padding

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
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        self.offset = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def rewindable(self) -> int:
        return self.offset

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} of {self.offset} tokens")
        self.offset -= tokens

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        if self.keys is None or self.values is None:
            return {}, {"offset": self.offset}
        seen = slice(0, self.offset)
        arrays = {"keys": self.keys[..., seen, :], "values": self.values[..., seen, :]}
        return arrays, {"offset": self.offset}

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        self.keys, self.values = arrays.get("keys"), arrays.get("values")
        self.offset = numbers["offset"]


class SlidingCache(_Buffers):
    """The last ``window`` tokens, and as many before them so that rewinding within a window stays exact.

    A linear buffer in order of time: when full, its tail moves to the front. In view are the new tokens and
    the ``window - 1`` before the first of them.
    """

    def __init__(self, window: int, padding: mx.array | None = None) -> None:
        super().__init__(padding)
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
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        first = end - min(self.offset, self.window - 1) - new
        self.offset += new
        return self.keys[:, :, first:end], self.values[:, :, first:end]

    def rewindable(self) -> int:
        if self._base == 0:
            return self.offset
        return max(0, self.offset - self._base - (self.window - 1))

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} tokens of a window of {self.window}")
        self.offset -= tokens

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        numbers = {"offset": self.offset, "base": self._base}
        if self.keys is None or self.values is None:
            return {}, numbers
        held = slice(0, self.offset - self._base)
        return {"keys": self.keys[..., held, :], "values": self.values[..., held, :]}, numbers

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        self.keys, self.values = arrays.get("keys"), arrays.get("values")
        self.offset, self._base = numbers["offset"], numbers["base"]
