"""NF4 with doubly quantized magnitudes: 4 bits a weight, 8 a block of 64, 64 a group of 256 blocks (4.129 in all).

Source: QLoRA (arXiv 2305.14314), sections 3 and appendix E; the levels of the magnitudes are the dynamic 8-bit map of
bitsandbytes (arXiv 2110.02861), so that its checkpoints mean the same numbers here. One difference: every group of 256
magnitudes keeps its own mean beside its scale (theirs is one of the whole matrix), so that a matrix is quantized in
one pass, and matrices join and part at groups without a change of any number.

A matrix (N, K), K a multiple of 64, is stored as

- ``weight`` uint32 (N, K / 8): eight codes a word, the first in the low bits, as MLX packs;
- ``scales`` uint8 (N, K / 64): the level of each block's largest magnitude;
- ``biases`` float32 (ceil(N * K / 64 / 256), 2): scale and mean of each group of blocks, row after row.

A stack (E, N, K) has one more first axis everywhere. Without ``biases``, ``scales`` are the magnitudes themselves.
"""

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from macllm.quantization import DEFAULTS, NF4_GROUP

BLOCK = DEFAULTS["nf4"][1]  # weights that share a magnitude
WORD = 8  # codes in a word
Codes: TypeAlias = Callable[[mx.array, mx.array], mx.array]
VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_EXPONENTS = 7  # of the dynamic map: decades from 1e-6 to 1


@cache
def values() -> mx.array:
    """The 16 values, ascending, float32."""
    return mx.array(VALUES)


@cache
def levels() -> mx.array:
    """The 256 levels of a magnitude, ascending, float32: ever finer towards zero, plus zero and one."""
    found = [0.0, 1.0]
    for decade in range(_EXPONENTS):
        edges = np.linspace(0.1, 1, 2**decade + 1)
        means = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - _EXPONENTS + 1)
        found += [*means, *-means]
    return mx.array(np.sort(np.array(found, np.float32)))


def groups(blocks: int) -> int:
    """Groups of a matrix that has so many blocks."""
    return -(-blocks // NF4_GROUP)


def quantize(matrix: mx.array, kernel: Codes | None = None) -> tuple[mx.array, mx.array, mx.array]:
    """``weight``, ``scales`` and ``biases`` of a matrix (N, K) or a stack (E, N, K).

    ``kernel`` computes the words from the matrix and its magnitudes, as :func:`quantize_codes` does.
    """
    blocks = matrix.astype(mx.float32).reshape(*matrix.shape[:-1], -1, BLOCK)
    codes, pairs = quantize_magnitudes(mx.max(mx.abs(blocks), axis=-1))
    words = (kernel or quantize_codes)(matrix, magnitudes(codes, pairs))
    return words, codes, pairs


def quantize_magnitudes(found: mx.array) -> tuple[mx.array, mx.array]:
    """Magnitudes (..., N, K / 64) as the nearest levels uint8, and each group's scale and mean (..., G, 2)."""
    lead, count = found.shape[:-2], found.shape[-2] * found.shape[-1]
    missing = groups(count) * NF4_GROUP - count
    flat = found.reshape(*lead, count)
    if missing:  # the last group is filled with its last member, and cut again
        filler = mx.broadcast_to(flat[..., -1:], (*lead, missing))
        flat = mx.concatenate([flat, filler], axis=-1)
    flat = flat.reshape(*lead, -1, NF4_GROUP)
    mean = mx.mean(flat, axis=-1, keepdims=True)
    around = flat - mean
    scale = mx.max(mx.abs(around), axis=-1, keepdims=True)
    near = mx.where(scale > 0, around / mx.maximum(scale, 1e-30), 0.0)
    codes = _nearest(near, levels()).reshape(*lead, -1)[..., :count]
    return codes.astype(mx.uint8).reshape(found.shape), mx.concatenate([scale, mean], axis=-1)


def magnitudes(scales: mx.array, biases: mx.array | None) -> mx.array:
    """The magnitudes (..., N, K / 64) in float32 that ``scales`` stand for."""
    if biases is None:
        return scales.astype(mx.float32)
    lead, count = scales.shape[:-2], scales.shape[-2] * scales.shape[-1]
    pairs = mx.repeat(biases, NF4_GROUP, axis=-2)[..., :count, :]
    flat = levels()[scales.reshape(*lead, count)]
    return (flat * pairs[..., 0] + pairs[..., 1]).reshape(scales.shape)


def quantize_codes(matrix: mx.array, found: mx.array) -> mx.array:
    """The nearest values' codes as words, for ``matrix`` (..., K) and its magnitudes (..., K / 64) in float32."""
    blocks = matrix.astype(mx.float32).reshape(*found.shape, BLOCK)
    codes = mx.zeros(blocks.shape, mx.uint8)
    for middle in (
        _middles()
    ):  # one after the other: fifteen answers a weight at once would be fifteen times the memory
        codes = codes + (blocks > middle * found[..., None])
    words = codes.astype(mx.uint32).reshape(*matrix.shape[:-1], -1, WORD)
    return mx.sum(words << mx.arange(0, 32, 4, dtype=mx.uint32), axis=-1)


@cache
def _middles() -> tuple[float, ...]:
    """Between two values each, in float32."""
    found: list[float] = ((values()[:-1] + values()[1:]) * 0.5).tolist()  # type: ignore[assignment]
    return tuple(found)


def dequantize(
    weight: mx.array, scales: mx.array, biases: mx.array | None, dtype: mx.Dtype = mx.float32
) -> mx.array:
    """The matrix (..., N, K) in plain MLX operations."""
    codes = (weight[..., None] >> mx.arange(0, 32, 4, dtype=mx.uint32)) & 15
    blocks = values()[codes].reshape(*scales.shape, BLOCK)
    whole = blocks * magnitudes(scales, biases)[..., None]
    return whole.reshape(*weight.shape[:-1], -1).astype(dtype)


def matvec(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array | None = None,
    index: mx.array | None = None,
) -> mx.array:
    """Rows x (R, K) times a matrix, or each times that of ``index`` (R,) in a stack: (R, N), summed in float32."""
    whole = dequantize(weight, scales, biases)
    wide = x.astype(mx.float32)
    if index is None:
        return (wide @ whole.T).astype(x.dtype)
    return (whole[index] @ wide[..., None])[..., 0].astype(x.dtype)


def rows(
    weight: mx.array, scales: mx.array, biases: mx.array | None, index: mx.array | slice | int
) -> tuple[mx.array, mx.array, mx.array | None]:
    """The rows ``index`` of a matrix; grouped magnitudes where the rows begin and end with groups, else plain ones.

    Of a stack, whole matrices.
    """
    if biases is None or biases.ndim > 2:
        return weight[index], scales[index], biases[index] if biases is not None else None
    span = _group_span(index, weight.shape[0], scales.shape[1])
    if span is not None:
        return weight[index], scales[index], biases[span]
    place = mx.arange(weight.shape[0])[index] if not isinstance(index, mx.array) else index
    columns = mx.arange(scales.shape[1])
    pairs = biases[(place[..., None] * scales.shape[1] + columns) // NF4_GROUP]  # (..., K / 64, 2)
    return weight[index], levels()[scales[index]] * pairs[..., 0] + pairs[..., 1], None


def ends_with_a_group(scales: mx.array) -> bool:
    """Whether the last group of a matrix (..., N, K / 64) is whole, so that another may follow."""
    return scales.shape[-2] * scales.shape[-1] % NF4_GROUP == 0


def _group_span(index: mx.array | slice | int, count: int, blocks: int) -> slice | None:
    """The groups of consecutive rows; None where the rows do not begin and end with groups."""
    if not isinstance(index, slice):
        return None
    start, stop, step = index.indices(count)
    whole_end = stop == count or stop * blocks % NF4_GROUP == 0
    if step != 1 or start * blocks % NF4_GROUP or not whole_end:
        return None
    return slice(start * blocks // NF4_GROUP, groups(stop * blocks))


def _nearest(found: mx.array, ascending: mx.array) -> mx.array:
    """Indices of the nearest members of ``ascending``; of the lower one where two are as near."""
    middles = np.array((ascending[:-1] + ascending[1:]) * 0.5)
    return mx.array(np.searchsorted(middles, np.array(found), side="left").astype(np.uint32))
