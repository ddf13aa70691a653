"""GGUF's block types in plain MLX operations on their bytes: the definition of what the kernels read.

``decode`` gives small whole numbers and, a group of them, a scale and for some types a bias; ``scale * code + bias``
in float32 is to the bit what the ``gguf`` package's ``dequantize`` gives: products are exact, one sum is rounded.

Source: the block structs of ggml (ggml-common.h, ggml-quants.c).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from macllm.quantization import BLOCKS, Mode


@dataclass(frozen=True)
class Groups:
    """Codes (..., G, group), scales and biases (..., G, 1), all float32; G groups a block."""

    codes: mx.array
    scales: mx.array
    biases: mx.array | None = None


def dequantize(weight: mx.array, name: Mode, dtype: mx.Dtype = mx.float32) -> mx.array:
    """The matrix (..., K) that rows of blocks (..., row bytes) uint8 of that type stand for."""
    groups = _DECODERS[name](weight.reshape(*weight.shape[:-1], -1, BLOCKS[name].nbytes))
    values = groups.codes * groups.scales
    if groups.biases is not None:
        values = values + groups.biases
    return values.reshape(*weight.shape[:-1], -1).astype(dtype)


@cache
def _iq4_values() -> mx.array:
    values = mx.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], mx.float32)
    mx.eval(values)
    return values


def _half(b: mx.array, at: int) -> mx.array:
    """The half at an offset of each block, (..., 1) in float32."""
    return mx.contiguous(b[..., at : at + 2]).view(mx.float16).astype(mx.float32)


def _parts(packed: mx.array, bits: int, width: int) -> mx.array:
    """Codes (..., n, width) of ``bits`` bits: each run of ``width`` bytes holds 8 / bits runs, lowest bits first."""
    shifts = mx.arange(0, 8, bits, dtype=mx.uint8)[:, None]
    runs = packed.reshape(*packed.shape[:-1], -1, 1, width) >> shifts  # (..., runs, 8 / bits, width)
    return mx.flatten(runs & (2**bits - 1), -3, -2)


def _nibbles(b: mx.array, at: int) -> mx.array:
    """(..., 1, 32) codes of the 16 bytes at an offset: all low halves, then all high halves."""
    return _parts(b[..., at : at + 16], 4, 16).flatten(-2)[..., None, :]


def _bits(b: mx.array, at: int) -> mx.array:
    """(..., 1, 32) bits of the 4 bytes at an offset, the lowest first."""
    return (b[..., at : at + 4, None] >> mx.arange(8, dtype=mx.uint8) & 1).flatten(-2)[..., None, :]


def _float(codes: mx.array, offset: int = 0) -> mx.array:
    return codes.astype(mx.float32) - offset if offset else codes.astype(mx.float32)


def _q4_0(b: mx.array) -> Groups:
    return Groups(_float(_nibbles(b, 2), 8), _half(b, 0)[..., None])


def _q4_1(b: mx.array) -> Groups:
    return Groups(_float(_nibbles(b, 4)), _half(b, 0)[..., None], _half(b, 2)[..., None])


def _q5_0(b: mx.array) -> Groups:
    return Groups(_float(_nibbles(b, 6) | _bits(b, 2) << 4, 16), _half(b, 0)[..., None])


def _q5_1(b: mx.array) -> Groups:
    codes = _float(_nibbles(b, 8) | _bits(b, 4) << 4)
    return Groups(codes, _half(b, 0)[..., None], _half(b, 2)[..., None])


def _q8_0(b: mx.array) -> Groups:
    return Groups(_float(b[..., None, 2:] ^ 128, 128), _half(b, 0)[..., None])


def _q2_k(b: mx.array) -> Groups:
    codes = _parts(b[..., 16:80], 2, 32).reshape(*b.shape[:-1], 16, 16)
    scales = _half(b, 80) * _float(b[..., :16] & 15)
    biases = -_half(b, 82) * _float(b[..., :16] >> 4)
    return Groups(_float(codes), scales[..., None], biases[..., None])


def _q3_k(b: mx.array) -> Groups:
    codes = _parts(b[..., 32:96], 2, 32) | _parts(b[..., :32], 1, 32) << 2
    low = _parts(b[..., 96:104], 4, 8).flatten(-2)  # (..., 16)
    top = _parts(b[..., 104:108], 2, 4).flatten(-2)
    scales = _half(b, 108) * _float(low | top << 4, 32)
    return Groups(_float(codes, 4).reshape(*b.shape[:-1], 16, 16), scales[..., None])


def _k_groups(b: mx.array, codes: mx.array) -> Groups:
    """With the eight scales and eight minimums of 6 bits that Q4_K and Q5_K keep in 12 bytes."""
    low, mid, high = b[..., 4:8], b[..., 8:12], b[..., 12:16]
    factors = mx.concatenate([low & 63, high & 15 | low >> 2 & 0x30], axis=-1)
    minimums = mx.concatenate([mid & 63, high >> 4 | mid >> 2 & 0x30], axis=-1)
    scales, biases = _half(b, 0) * _float(factors), -_half(b, 2) * _float(minimums)
    return Groups(_float(codes), scales[..., None], biases[..., None])


def _q4_k(b: mx.array) -> Groups:
    return _k_groups(b, _parts(b[..., 16:], 4, 32))


def _q5_k(b: mx.array) -> Groups:
    return _k_groups(b, _parts(b[..., 48:], 4, 32) | _parts(b[..., 16:48], 1, 32) << 4)


def _q6_k(b: mx.array) -> Groups:
    low = _parts(b[..., :128], 4, 64).reshape(*b.shape[:-1], 8, 32)
    codes = _float(low | _parts(b[..., 128:192], 2, 32) << 4, 32)
    scales = _half(b, 208) * mx.contiguous(b[..., 192:208]).view(mx.int8).astype(mx.float32)
    return Groups(codes.reshape(*b.shape[:-1], 16, 16), scales[..., None])


def _iq4_nl(b: mx.array) -> Groups:
    return Groups(_iq4_values()[_nibbles(b, 2)], _half(b, 0)[..., None])


def _iq4_xs(b: mx.array) -> Groups:
    codes = _iq4_values()[_parts(b[..., 8:], 4, 16).reshape(*b.shape[:-1], 8, 32)]
    low = _parts(b[..., 4:8], 4, 1).flatten(-2)  # (..., 8)
    top = _parts(b[..., 2:4], 2, 1).flatten(-2)
    scales = _half(b, 0) * _float(low | top << 4, 32)
    return Groups(codes, scales[..., None])


_DECODERS: Mapping[Mode, Callable[[mx.array], Groups]] = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
    "iq4_nl": _iq4_nl,
    "iq4_xs": _iq4_xs,
}
