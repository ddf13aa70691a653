"""Rotary position embedding: every scaling's frequencies, applied by MLX's kernel or, to a token on CPU, a matrix."""

import math
from functools import cache

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.spec import LinearScaling, Llama3Scaling, Rope, TableScaling, YarnScaling


class RotaryEmbedding(Module):
    """Rotates the first ``dims`` of each head by its position. Layers with the same ``Rope`` share one."""

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.dims = rope.dims
        self._interleaved = rope.interleaved
        self._periods = mx.array(periods(rope), dtype=mx.float32)  # (dims / 2,)
        self._temperature = attention_temperature(rope)
        self._fused = mx.default_device() == mx.gpu
        self._last: tuple[int, int, mx.array] | None = None  # offset, head width, its rotation

    def __call__(self, x: mx.array, offset: int | mx.array) -> mx.array:
        """Rotates ``x`` (B, H, L, D), whose first position is ``offset``, one for all rows or one a row (B,)."""
        if x.shape[2] == 1 and isinstance(offset, int) and not self._fused and x.dtype == mx.float32:
            # on CPU the kernel is 20 small operations a layer; this is one, and one matrix a step for all layers
            return x @ self.rotation(offset, x.shape[3])
        if self._temperature != 1.0:
            x = x * self._temperature
        return mx.fast.rope(
            x,
            self.dims,
            traditional=self._interleaved,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self._periods,
        )

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
        cos = mx.concatenate([mx.cos(angles), beyond])
        sin = mx.concatenate([mx.sin(angles), 0 * beyond])
        partner = mx.pad(self._partner(), (0, width - self.dims))
        return (mx.eye(width) * cos + partner * sin) * self._temperature

    def _partner(self) -> mx.array:
        """The matrix that makes of each pair (a, b) the pair (-b, a)."""
        if not self._interleaved:
            half = self.dims // 2
            return mx.eye(self.dims, k=half) - mx.eye(self.dims, k=-half)
        even = (mx.arange(self.dims) % 2 == 0)[:, None]
        return mx.where(even, mx.eye(self.dims, k=1), -mx.eye(self.dims, k=-1))


@cache
def rotary(rope: Rope) -> RotaryEmbedding:
    """The embedding of a specification, one for all layers that have it."""
    return RotaryEmbedding(rope)


def periods(rope: Rope) -> list[float]:
    """The reciprocal angular frequency of each pair, in positions a radian: base ** (2i / dims), scaled."""
    plain = [rope.base ** (2 * i / rope.dims) for i in range(rope.dims // 2)]
    match rope.scaling:
        case None:
            return plain
        case LinearScaling(factor):
            return [period * factor for period in plain]
        case TableScaling(factors):
            return [period * factor for period, factor in zip(plain, factors, strict=True)]
        case Llama3Scaling():
            return [_llama3(period, rope.scaling) for period in plain]
        case YarnScaling():
            return _yarn(rope, plain, rope.scaling)


def attention_temperature(rope: Rope) -> float:
    """The factor on q and k that YaRN's softmax temperature comes to (1 without YaRN)."""
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
