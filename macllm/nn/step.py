"""What all layers of one pass share: where its tokens stand, which are real, and which keys each may see."""

import math
from collections.abc import Mapping
from functools import cached_property

import mlx.core as mx

from macllm.nn.quantized_kv_cache import PackedView
from macllm.spec import QueryScale


class Step:
    """``length`` tokens a row after ``offset`` that came before; ``padding`` (B,) counts the ones at a row's start
    that are none, where rows of different lengths are computed together. ``ahead`` tokens are known to follow.
    """

    def __init__(self, length: int, offset: int = 0, padding: mx.array | None = None, ahead: int = 0) -> None:
        self.length = length
        self.offset = offset
        self.padding = padding
        # the position of a row's first token here: its own count where padding moves it
        self.position: int | mx.array = offset if padding is None else offset - padding
        self.ahead = ahead
        self.recomputes = (
            False  # whether a backward pass is to compute attention's scores anew, and none is kept
        )
        self.shared: dict[str, mx.array] = {}  # what a layer gives to those after it
        self.layer = 0  # the one that computes now
        # by layer, keys and values in view, for later layers
        self.lent: dict[int, tuple[mx.array, mx.array] | PackedView] = {}
        self.sides: list[mx.array] = []  # each layer's input beside the states (B, L, P)
        # by layer, keys and values (1, K, P, d) that stand before the first token, at the positions before 0
        self.before: Mapping[int, tuple[mx.array, mx.array]] | None = None
        self.keeps: dict[int, tuple[mx.array, mx.array]] | None = (
            None  # is given each layer's own, if not None
        )
        self._masks: dict[tuple[object, ...], mx.array] = {}

    @cached_property
    def totals(self) -> tuple[int, ...]:
        """The length of the whole sequence with all that is known to follow; one a row where they have padding."""
        total = self.offset + self.length + self.ahead
        if self.padding is None:
            return (total,)
        before: list[int] = self.padding.tolist()  # type: ignore[assignment]
        return tuple(total - tokens for tokens in before)

    @property
    def positions(self) -> mx.array:
        """The position of each token (L,), or (B, L) where rows have their own; 0 for padding."""
        if isinstance(self.position, int):
            return mx.arange(self.position, self.position + self.length)
        return mx.maximum(mx.arange(self.length) + self.position[:, None], 0)

    @property
    def valid(self) -> mx.array | None:
        """Booleans (B, L), True for tokens that are no padding; None: all are."""
        if self.padding is None:
            return None
        return mx.arange(self.offset, self.offset + self.length) >= self.padding[:, None]

    def without_padding(self, x: mx.array) -> mx.array:
        """What tokens give (B, L, ...), zero for those that are none."""
        valid = self.valid
        if valid is None:
            return x
        return mx.where(valid.reshape(*valid.shape, *(1,) * (x.ndim - 2)), x, mx.array(0, x.dtype))

    def mask(self, queries: range, keys: range, window: int | None, chunk: int | None) -> mx.array:
        """Which of ``keys`` each of ``queries`` sees (both in tokens from the sequence's first, padding included).

        Causal, no further back than ``window`` or than the start of the query's own ``chunk``, and no padding.
        Booleans (L, S), or (B, 1, L, S) where there is padding. Blocks of the same shape share one mask.
        """
        ahead = queries.start - keys.start
        phase = queries.start % chunk if chunk is not None else None
        place = keys.start if self.padding is not None else None
        known = (len(queries), len(keys), ahead, window, phase, place)
        if known not in self._masks:
            self._masks[known] = self._mask(queries, keys, window, chunk)
        return self._masks[known]

    def penalties(
        self,
        queries: range,
        keys: range,
        window: int | None,
        chunk: int | None,
        slopes: tuple[float, ...],
        dtype: mx.Dtype,
    ) -> mx.array:
        """What ALiBi and the mask add to scores (H, L, S), or (B, H, L, S) where there is padding.

        A step's only block shares it between all layers; several would be all queries by all keys.
        """
        known = (queries, keys, window, chunk, slopes, dtype)
        if known in self._masks:
            return self._masks[known]
        distance = (_column(queries) - _row(keys)).astype(mx.float32)
        penalties = mx.array(slopes)[:, None, None] * -distance  # (H, L, S)
        if len(queries) > 1 or self.padding is not None:
            penalties = mx.where(self.mask(queries, keys, window, chunk), penalties, -mx.inf)
        penalties = penalties.astype(dtype)
        if len(queries) == self.length:
            self._masks[known] = penalties
        return penalties

    def query_scale(self, scale: QueryScale, dtype: mx.Dtype) -> float | mx.array:
        """What queries are multiplied by: one number where it is the same for all, else (L, 1) or (B, 1, L, 1)."""
        if isinstance(self.position, int):
            first, last = (
                1 + scale.weight * math.log1p((position + scale.first) // scale.every)
                for position in (self.position, self.position + self.length - 1)
            )
            if first == last:
                return first
        known = (scale, dtype)
        if known not in self._masks:
            steps = ((self.positions + scale.first) // scale.every).astype(mx.float32)
            found = (1 + scale.weight * mx.log1p(steps)).astype(dtype)[..., None]
            self._masks[known] = found[:, None] if found.ndim == 3 else found
        return self._masks[known]

    def _mask(self, queries: range, keys: range, window: int | None, chunk: int | None) -> mx.array:
        query, key = _column(queries), _row(keys)
        seen = key <= query
        if window is not None:
            seen = seen & (key > query - window)
        padding = self.padding[:, None, None, None] if self.padding is not None else None
        if chunk is not None:  # counted from the row's own first token
            own = query if padding is None else query - padding
            seen = seen & (key >= query - own % chunk)
        if padding is not None:
            # padding sees itself: a row of nothing would be no number, and spread
            real = key >= padding
            if keys.start < 0:  # what stands before every row's first token
                real = real | (key < 0)
            seen = seen & (real | (key == query))
        return seen


def _column(positions: range) -> mx.array:
    return mx.arange(positions.start, positions.stop)[:, None]


def _row(positions: range) -> mx.array:
    return mx.arange(positions.start, positions.stop)[None]
