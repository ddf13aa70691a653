"""Caches of keys and values: of every token, or of those that a window or a chunk leaves in reach."""

import copy
from abc import ABC, abstractmethod
from typing import Generic, Self, TypeVar

import mlx.core as mx

from macllm.sizes import KEPT_WINDOWS

_STEP = 256  # buffers grow by at least this many tokens

InView = TypeVar("InView")  # how attention is shown what it sees


class Buffers(ABC, Generic[InView]):
    """Growing buffers (B, ..., capacity, W) that hold keys and values, whose widths may differ.

    A subclass says what they hold (``_names``, ``_stored``, ``_in_view``) and which tokens (``update``).
    """

    _names: tuple[str, ...]

    def __init__(self, padding: mx.array | None = None) -> None:
        self.buffers: list[mx.array] = []
        self.offset = 0
        self.padding = padding

    @abstractmethod
    def update(self, keys: mx.array, values: mx.array) -> InView:
        """Appends (B, H, L, D) and shows all keys and values in view, oldest first."""

    @abstractmethod
    def _stored(self, keys: mx.array, values: mx.array) -> tuple[mx.array, ...]:
        """New keys and values as the buffers hold them."""

    @abstractmethod
    def _in_view(self, start: int, stop: int) -> InView:
        """What lies at these places of the buffers."""

    @property
    def allocated_bytes(self) -> int:
        return sum(int(array.nbytes) for array in self.buffers)

    @property
    def capacity(self) -> int:
        """Tokens that the buffers have room for."""
        return self.buffers[0].shape[2] if self.buffers else 0

    def arrays(self) -> list[mx.array]:
        return [*self.buffers]

    def copy(self) -> Self:
        twin = copy.copy(self)
        # slice updates write into a buffer that has one owner, so the twin needs arrays of its own
        twin.buffers = [mx.array(buffer) for buffer in self.buffers]
        return twin

    def _bytes_of(self, tokens: int) -> int:
        return self.allocated_bytes * tokens // max(self.capacity, 1)

    def _move(self, new: tuple[mx.array, ...], first: int, last: int, capacity: int) -> None:
        """Makes buffers of ``capacity`` for the like of ``new`` that start with the places ``first`` to ``last``."""
        room = capacity - (last - first)
        kept = [[buffer[..., first:last, :]] for buffer in self.buffers] or [[] for _ in new]
        self.buffers = [
            mx.concatenate([*old, mx.zeros((*like.shape[:2], room, like.shape[3]), like.dtype)], axis=2)
            for old, like in zip(kept, new, strict=True)
        ]

    def _write(self, new: tuple[mx.array, ...], start: int, stop: int) -> None:
        for buffer, rows in zip(self.buffers, new, strict=True):
            buffer[:, :, start:stop] = rows

    def _held(self, tokens: int) -> dict[str, mx.array]:
        """The first ``tokens`` of each buffer, by name."""
        parts = [buffer[..., :tokens, :] for buffer in self.buffers]
        return dict(zip(self._names, parts, strict=True)) if parts else {}

    def _take(self, arrays: dict[str, mx.array], offset: int) -> None:
        """Raises KeyError where a cache of another kind held the arrays."""
        self.buffers = [arrays[name] for name in self._names] if arrays or offset else []
        self.offset = offset


class EveryToken(Buffers[InView]):
    """All tokens, for full attention."""

    @property
    def nbytes(self) -> int:
        return self._bytes_of(self.offset)

    def update(self, keys: mx.array, values: mx.array) -> InView:
        new = self._stored(keys, values)
        start, end = self.offset, self.offset + keys.shape[2]
        if end > self.capacity:
            self._move(new, 0, start, -(-max(end, end * 9 // 8) // _STEP) * _STEP)
        self._write(new, start, end)
        self.offset = end
        return self._in_view(0, end)

    def rewindable(self) -> int:
        return self.offset

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} of {self.offset} tokens")
        self.offset -= tokens

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        return self._held(self.offset), {"offset": self.offset}

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        self._take(arrays, numbers["offset"])


class LastTokens(Buffers[InView]):
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

    def update(self, keys: mx.array, values: mx.array) -> InView:
        new, count = self._stored(keys, values), keys.shape[2]
        start, end = self.offset, self.offset + count
        if end - self._base > self.capacity:
            keep = max(self._base, start - KEPT_WINDOWS * self.window)
            capacity = -(-(end - keep + min(self.window, _STEP)) // _STEP) * _STEP
            self._move(new, keep - self._base, start - self._base, capacity)
            self._base = keep
        self._write(new, start - self._base, end - self._base)
        end -= self._base
        first = end - min(self.offset, self.window - 1) - count
        self.offset += count
        return self._in_view(first, end)

    def rewindable(self) -> int:
        if self._base == 0:
            return self.offset
        return max(0, self.offset - self._base - (self.window - 1))

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} tokens of a window of {self.window}")
        self.offset -= tokens

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        return self._held(self.offset - self._base), {"offset": self.offset, "base": self._base}

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        self._take(arrays, numbers["offset"])
        self._base = numbers["base"]


class _Plain(Buffers[tuple[mx.array, mx.array]]):
    """Keys and values as they come (B, H, capacity, D)."""

    _names = ("keys", "values")

    def _stored(self, keys: mx.array, values: mx.array) -> tuple[mx.array, ...]:
        return keys, values

    def _in_view(self, start: int, stop: int) -> tuple[mx.array, mx.array]:
        keys, values = self.buffers
        return keys[:, :, start:stop], values[:, :, start:stop]


class FullCache(_Plain, EveryToken[tuple[mx.array, mx.array]]):
    """All keys and values."""


class SlidingCache(_Plain, LastTokens[tuple[mx.array, mx.array]]):
    """Those that a window leaves in reach."""
