"""Rotary position embedding: every scaling's frequencies, applied by MLX's kernel or, to a token on CPU, a matrix."""

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import mlx.core as mx

from macllm.nn.step import Step
from macllm.spec import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    ProportionalScaling,
    Rope,
    TableScaling,
    YarnScaling,
)

# (B, H, L, D) and the position of the first, one for all rows or one a row (B,); or of each token (B, L)
Rotation: TypeAlias = Callable[[mx.array, int | mx.array], mx.array]


class RotaryEmbedding:
    """Rotates the first ``dims`` of each head by its position. Layers with the same ``Rope`` share one."""

    late = False  # whether the keys before are turned anew with every token, so that a cache holds them as they are

    def __init__(self, rope: Rope) -> None:
        self.dims = rope.dims
        self._interleaved = rope.interleaved
        self._periods = mx.array(periods(rope), dtype=mx.float32)  # (dims / 2,)
        self._temperature = attention_temperature(rope)
        self._fused = mx.default_device() == mx.gpu
        self._last: tuple[int, int, mx.array] | None = None  # offset, head width, its rotation
        self._factors: dict[
            tuple[int, mx.Dtype], float | mx.array
        ] = {}  # the temperature, by head width and type

    def of(self, step: Step) -> Rotation:
        """The rotation of a step's sequences, which may depend on how long they are."""
        return self

    def __call__(self, x: mx.array, offset: int | mx.array) -> mx.array:
        """Rotates ``x`` (B, H, L, D), whose first position is ``offset``, one for all rows or one a row (B,).

        With offsets (B, L) they are the positions of all tokens.
        """
        if isinstance(offset, int):
            if x.shape[2] == 1 and not self._fused and x.dtype == mx.float32:
                # on CPU the kernel is 20 small operations a layer; this is one, and one matrix a step for all layers
                return x @ self.rotation(offset, x.shape[3])
        elif offset.ndim == 2:
            return self._token_by_token(x, offset)
        if self._temperature != 1.0:
            x = x * self._factor(x.shape[3], x.dtype)
        return mx.fast.rope(
            x,
            self.dims,
            traditional=self._interleaved,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self._periods,
        )

    def _token_by_token(self, x: mx.array, positions: mx.array) -> mx.array:
        """Every token as a row of its own: the kernel knows one position a row."""
        batch, heads, length, width = x.shape
        rows = x.swapaxes(1, 2).reshape(-1, heads, 1, width)  # (B L, H, 1, D)
        return self(rows, positions.reshape(-1)).reshape(batch, length, heads, width).swapaxes(1, 2)

    def rotation(self, offset: int, width: int) -> mx.array:
        """The matrix (D, D) that rotates a row vector at one position; the last one is kept."""
        last = self._last
        if last is None or last[:2] != (offset, width):
            last = (offset, width, self._rotation(offset, width))
            self._last = last
        return last[2]

    def _rotation(self, offset: int, width: int) -> mx.array:
        angles = offset * mx.reciprocal(self._periods)  # rounded as the kernel does, which prefill used
        # by column: the pair's own angle
        angles = mx.repeat(angles, 2) if self._interleaved else mx.concatenate([angles, angles])
        beyond = mx.ones(width - self.dims)
        cos = mx.concatenate([mx.cos(angles) * self._temperature, beyond])
        sin = mx.concatenate([mx.sin(angles) * self._temperature, 0 * beyond])
        partner = mx.pad(self._partner(), (0, width - self.dims))
        return mx.eye(width) * cos + partner * sin

    def _factor(self, width: int, dtype: mx.Dtype) -> float | mx.array:
        """The temperature, of the part of a head that turns."""
        known = (width, dtype)
        if known not in self._factors:
            parts = [mx.full(self.dims, self._temperature), mx.ones(width - self.dims)]
            whole = self.dims == width
            self._factors[known] = self._temperature if whole else mx.concatenate(parts).astype(dtype)
        return self._factors[known]

    def _partner(self) -> mx.array:
        """The matrix that makes of each pair (a, b) the pair (-b, a)."""
        if not self._interleaved:
            half = self.dims // 2
            return mx.eye(self.dims, k=half) - mx.eye(self.dims, k=-half)
        even = (mx.arange(self.dims) % 2 == 0)[:, None]
        return mx.where(even, mx.eye(self.dims, k=1), -mx.eye(self.dims, k=-1))


class LengthwiseEmbedding(RotaryEmbedding):
    """Rotations that depend on the length of the whole sequence: LongRoPE, dynamic NTK. Called as it is: a short one's.

    LongRoPE changes once; what was computed before is then computed anew (``macllm.nn.token_cache``). Dynamic NTK
    changes with every token: keys are turned when they are used, for the length that the sequence has then.
    """

    def __init__(self, rope: Rope) -> None:
        super().__init__(rope.at(0))
        self._rope = rope
        self._chosen: tuple[tuple[int, ...], Rotation] | None = None  # lengths, and the rotation for them
        self.late = isinstance(rope.scaling, DynamicScaling)

    def of(self, step: Step) -> Rotation:
        if self._chosen is None or self._chosen[0] != step.totals:
            self._chosen = (step.totals, self._for(step.totals))
        return self._chosen[1]

    def _for(self, lengths: tuple[int, ...]) -> Rotation:
        ropes = [self._rope.at(length) for length in lengths]
        different = dict.fromkeys(ropes)
        # a dynamic base is met once: nothing to keep
        make = RotaryEmbedding if self.late else rotary
        embeddings = {rope: make(rope) for rope in different}
        if len(different) == 1:
            return embeddings[ropes[0]]

        def row_by_row(x: mx.array, offset: int | mx.array) -> mx.array:
            assert isinstance(offset, mx.array)  # rows of different lengths are padded
            parts = [
                embeddings[rope](x[row : row + 1], offset[row : row + 1]) for row, rope in enumerate(ropes)
            ]
            return mx.concatenate(parts)

        return row_by_row


@cache
def rotary(rope: Rope) -> RotaryEmbedding:
    """The embedding of a specification, one for all layers that have it."""
    lengthwise = isinstance(rope.scaling, LongScaling | DynamicScaling)
    return LengthwiseEmbedding(rope) if lengthwise else RotaryEmbedding(rope)


def periods(rope: Rope) -> list[float]:
    """The reciprocal angular frequency of each pair, in positions a radian: base ** (2i / dims), scaled."""
    plain = [rope.base ** (2 * i / rope.dims) for i in range(rope.dims // 2)]
    match rope.scaling:
        case LinearScaling(factor):
            return [period * factor for period in plain]
        case TableScaling(factors):
            return [period * factor for period, factor in zip(plain, factors, strict=True)]
        case ProportionalScaling(share, factor):
            turning = int(share * rope.dims // 2)
            return [period * factor for period in plain[:turning]] + [math.inf] * (len(plain) - turning)
        case Llama3Scaling():
            return [_llama3(period, rope.scaling) for period in plain]
        case YarnScaling():
            return _yarn(rope, plain, rope.scaling)
        case LongScaling() | DynamicScaling():
            raise ValueError("the length of the sequence decides: take the rope `at` one")
    return plain


def attention_temperature(rope: Rope) -> float:
    """The factor on q and k that a softmax temperature comes to (YaRN, LongRoPE; 1 without one)."""
    if isinstance(rope.scaling, TableScaling):
        return rope.scaling.temperature
    if not isinstance(rope.scaling, YarnScaling):
        return 1.0
    if rope.scaling.attention_factor is not None:
        return rope.scaling.attention_factor
    return 0.1 * math.log(rope.scaling.factor) + 1.0 if rope.scaling.factor > 1 else 1.0


def _llama3(period: float, s: Llama3Scaling) -> float:
    """Llama 3.1: long wavelengths stretched by ``factor``, short ones kept, the rest in between."""
    turns = s.original_context / (2 * math.pi * period)  # full turns within the original context
    if turns < s.low_factor:
        return period * s.factor
    if turns > s.high_factor:
        return period
    smooth = (turns - s.low_factor) / (s.high_factor - s.low_factor)
    return 1.0 / ((1 - smooth) / (period * s.factor) + smooth / period)


def _yarn(rope: Rope, plain: list[float], s: YarnScaling) -> list[float]:
    """YaRN section 3.2: interpolate slow pairs, keep fast ones, ramp between ``beta_fast`` and ``beta_slow`` turns."""

    def pair_of(turns: float) -> float:
        context = s.original_context / (turns * 2 * math.pi)
        return rope.dims * math.log(context) / (2 * math.log(rope.base))

    low, high = pair_of(s.beta_fast), pair_of(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dims - 1)
    span = max(high - low, 0.001)
    result = []
    for i, period in enumerate(plain):
        ramp = min(max((i - low) / span, 0.0), 1.0)
        result.append(1.0 / (ramp / (period * s.factor) + (1 - ramp) / period))
    return result
