"""The ids of a sequence's first tokens, for models that turn all tokens otherwise once it has outgrown a length.

The states of later layers, and so the keys and values that other caches hold, come of attention with the old
rotation. Turning the keys anew would therefore not be enough: what comes before the border is computed again, once
when a sequence crosses it, and once more where it is taken back.
"""

import copy
from typing import Self

import mlx.core as mx


class TokenCache:
    """The ids before the ``border``, and which of the rows were beyond it when the other caches were filled."""

    def __init__(self, border: int, padding: mx.array | None = None) -> None:
        self.border = border
        self.padding = padding
        self.offset = 0
        self._ids: mx.array | None = None  # (B, border and the longest padding)
        self._beyond: tuple[bool, ...] = ()

    @property
    def nbytes(self) -> int:
        if self._ids is None:
            return 0
        return int(self._ids.nbytes) * min(self.offset, self._ids.shape[1]) // self._ids.shape[1]

    @property
    def allocated_bytes(self) -> int:
        return int(self._ids.nbytes) if self._ids is not None else 0

    def arrays(self) -> list[mx.array]:
        return [self._ids] if self._ids is not None else []

    def outdated(self, lengths: tuple[int, ...]) -> mx.array | None:
        """The ids so far (B, S), where for sequences of these ``lengths`` they are to be computed again."""
        beyond = tuple(length > self.border for length in lengths)
        changed = self.offset > 0 and beyond != self._beyond
        self._beyond = beyond
        if not changed or self._ids is None:
            return None
        # one that crosses the border here, or comes back over it, has no more than these
        assert self.offset <= self._ids.shape[1]
        return self._ids[:, : self.offset]

    def append(self, ids: mx.array) -> None:
        """Ids (B, L) that the other caches get too."""
        if self._ids is None:
            padding: list[int] = self.padding.tolist() if self.padding is not None else [0]  # type: ignore[assignment]
            self._ids = mx.zeros((ids.shape[0], self.border + max(padding)), mx.int32)
        kept = min(ids.shape[1], self._ids.shape[1] - self.offset)
        if kept > 0:
            self._ids[:, self.offset : self.offset + kept] = ids[:, :kept]
        self.offset += ids.shape[1]

    def rewindable(self) -> int:
        return self.offset

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} of {self.offset} tokens")
        self.offset -= tokens

    def copy(self) -> Self:
        twin = copy.copy(self)
        # slice updates write into a buffer that has one owner
        twin._ids = mx.array(self._ids) if self._ids is not None else None
        return twin

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        numbers = {"offset": self.offset} | {
            f"beyond.{row}": int(one) for row, one in enumerate(self._beyond)
        }
        return ({"ids": self._ids} if self._ids is not None else {}), numbers

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        self._ids, self.offset = arrays.get("ids"), numbers["offset"]
        self._beyond = tuple(bool(numbers[f"beyond.{row}"]) for row in range(len(numbers) - 1))
