"""Affine weights that moved a little, packed again from the codes that they had.

A packed matrix lies on its own grid, so a new one, from the extremes of each moved group, gives every weight an error
that it did not have. Here each group keeps its codes as far as they are still the nearest, and scale and bias are
those that come closest to what is wanted, by least squares; where a new grid comes closer the group gets that.
"""

from dataclasses import replace

import mlx.core as mx

from macllm.nn.stored import Packed

_ROUNDS = 2  # of scale and bias for the codes, and codes for those


def refits(packed: Packed) -> bool:
    """Whether :func:`refit` can: codes lie in whole words, beside a scale and a bias for each group."""
    q = packed.quantization
    return q.mode == "affine" and packed.biases is not None and 32 % q.bits == 0


def refit(old: Packed, wanted: mx.array, fresh: Packed) -> Packed:
    """``wanted`` (..., O, I) in float32, packed as ``old`` is; ``fresh`` is what a new grid makes of it."""
    q = old.quantization
    groups = wanted.reshape(*wanted.shape[:-1], -1, q.group_size)  # (..., O, G, g)
    assert old.biases is not None and fresh.biases is not None
    dtype, most = old.biases.dtype, 2**q.bits - 1
    scale, bias = old.group_scales.astype(mx.float32), old.biases.astype(mx.float32)  # (..., O, G)
    codes = _nearest(old.dequantize(mx.float32).reshape(groups.shape), scale, bias, most)
    for _ in range(_ROUNDS):
        scale, bias = _solved(codes, groups, scale, dtype)
        codes = _nearest(groups, scale, bias, most)
    ours = scale[..., None] * codes + bias[..., None]
    theirs = fresh.dequantize(mx.float32).reshape(groups.shape)
    closer = _error(ours, groups) <= _error(theirs, groups)  # (..., O, G)
    words = q.group_size * q.bits // 32
    weight = _words(codes, q.bits).reshape(*closer.shape, words)
    chosen = mx.where(closer[..., None], weight, fresh.weight.reshape(weight.shape))
    return replace(
        fresh,
        weight=chosen.reshape(fresh.weight.shape),
        scales=mx.where(closer, scale.astype(dtype), fresh.group_scales),
        biases=mx.where(closer, bias.astype(dtype), fresh.biases),
    )


def _solved(codes: mx.array, groups: mx.array, scale: mx.array, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """The scale and the bias of each group that bring its codes closest to it, as they will be stored."""
    mean, middle = codes.mean(axis=-1, keepdims=True), groups.mean(axis=-1, keepdims=True)
    spread = ((codes - mean) ** 2).sum(axis=-1)
    slope = ((codes - mean) * (groups - middle)).sum(axis=-1)
    scale = mx.where(
        spread > 0, slope / mx.maximum(spread, 1e-12), scale
    )  # all codes the same: any scale does
    scale = scale.astype(dtype).astype(mx.float32)
    bias = middle[..., 0] - scale * mean[..., 0]
    return scale, bias.astype(dtype).astype(mx.float32)


def _nearest(values: mx.array, scale: mx.array, bias: mx.array, most: int) -> mx.array:
    step = mx.where(scale == 0, mx.array(1.0), scale)[..., None]
    return mx.clip(mx.round((values - bias[..., None]) / step), 0, most)


def _error(found: mx.array, wanted: mx.array) -> mx.array:
    return ((found - wanted) ** 2).sum(axis=-1)


def _words(codes: mx.array, bits: int) -> mx.array:
    """Codes (..., n) as words of 32 bits, the first in the lowest."""
    each = 32 // bits
    shifted = codes.astype(mx.uint32).reshape(*codes.shape[:-1], -1, each) << (
        mx.arange(each, dtype=mx.uint32) * bits
    )
    return shifted.sum(axis=-1)
