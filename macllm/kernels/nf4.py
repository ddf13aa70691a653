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

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from macllm.kernels.kernel import DTYPES, Body, Case, Kernel, Launch, Reference, Sample
from macllm.kernels.samples import TOLERANCES, as_float64, bits, random
from macllm.kernels.workload import Workload
from macllm.quantization import DEFAULTS, NF4_GROUP

BLOCK = DEFAULTS["nf4"][1]  # weights that share a magnitude
_WORD = 8  # codes in a word
Codes: TypeAlias = Callable[[mx.array, mx.array], mx.array]
_VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_EXPONENTS = 7  # of the dynamic map: decades from 1e-6 to 1


@cache
def values() -> mx.array:
    """The 16 values, ascending, float32."""
    return mx.array(_VALUES)


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
    words = codes.astype(mx.uint32).reshape(*matrix.shape[:-1], -1, _WORD)
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


# ---- the kernels ----

_STORED = ("weight", "codes", "seconds", "levels")
_MATVEC = Body("nf4_matvec", ("x", *_STORED, "index"), ("y",), ("nf4",))
_DEQUANTIZE = Body("nf4_dequantize", _STORED, ("y",), ("nf4",))
_QUANTIZE = Body("nf4_quantize", ("x", "magnitudes"), ("y",), ("nf4",))
_ROWS = 8  # outputs of a threadgroup: two simdgroups of four


def _bind_matvec(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array | None = None,
    index: mx.array | None = None,
) -> Launch:
    outputs, inputs = weight.shape[-2], weight.shape[-1] * _WORD
    double, rows_ = biases is not None, x.shape[0]
    return Launch(
        _MATVEC,
        (
            x,
            weight,
            scales,
            mx.zeros(2) if biases is None else biases,
            levels(),
            mx.zeros(1, mx.uint32) if index is None else index,
        ),
        {"T": x.dtype, "K": inputs, "N": outputs, "GATHER": index is not None, "DOUBLE": double},
        (32 * rows_, 2 * -(-outputs // _ROWS), 1),
        (32, 2, 1),
        ((rows_, outputs),),
        (x.dtype,),
    )


def _bind_dequantize(weight: mx.array, scales: mx.array, biases: mx.array | None, dtype: mx.Dtype) -> Launch:
    outputs, inputs = weight.shape[-2], weight.shape[-1] * _WORD
    double = biases is not None
    return Launch(
        _DEQUANTIZE,
        (weight, scales, mx.zeros(2) if biases is None else biases, levels()),
        {"T": dtype, "K": inputs, "N": outputs, "DOUBLE": double},
        (weight.size, 1, 1),
        (256, 1, 1),
        ((*weight.shape[:-1], inputs),),
        (dtype,),
    )


def _bind_quantize(matrix: mx.array, found: mx.array) -> Launch:
    words = (*matrix.shape[:-1], matrix.shape[-1] // _WORD)
    return Launch(
        _QUANTIZE,
        (matrix, found),
        {"T": matrix.dtype},
        (math.prod(words), 1, 1),
        (256, 1, 1),
        (words,),
        (mx.uint32,),
    )


def _matvec_twin(**arguments: mx.array) -> tuple[mx.array, ...]:
    return (matvec(**arguments),)


def _dequantize_twin(
    weight: mx.array, scales: mx.array, biases: mx.array | None, dtype: mx.Dtype
) -> tuple[mx.array, ...]:
    return (dequantize(weight, scales, biases, dtype),)


def _quantize_twin(matrix: mx.array, found: mx.array) -> tuple[mx.array, ...]:
    return (quantize_codes(matrix, found),)


def _matvec_cases() -> Iterator[Case]:
    for dtype, (outputs, inputs), rows_, double in product(
        DTYPES, ((8, 64), (33, 192), (100, 576), (16, 2048)), (1, 3), (True, False)
    ):
        stored = _stored((outputs, inputs), double)
        x = random((rows_, inputs), dtype)
        label = "grouped magnitudes" if double else "plain magnitudes"
        yield _matvec_case(label, x, stored, None)
    for dtype in DTYPES:
        stack = _stored((3, 60, 576), double=True)  # 540 blocks each: two groups of 256 and a part of one
        yield _matvec_case("of a stack", random((4, 576), dtype), stack, mx.array([2, 0, 2, 1], mx.uint32))
        zeros = quantize(mx.zeros((12, 128)))
        yield _matvec_case("all zeros", random((2, 128), dtype), zeros, None)
        wild = quantize(random((24, 640)) * mx.power(10.0, random((24, 1))))
        yield _matvec_case("rows of other sizes", random((2, 640), dtype), wild, None)


def _dequantize_cases() -> Iterator[Case]:
    for dtype, shape, double in product(
        DTYPES, ((8, 64), (33, 192), (2, 60, 576), (3, 100, 128)), (True, False)
    ):
        stored = _stored(shape, double)
        arguments = dict(zip(("weight", "scales", "biases"), stored, strict=True)) | {"dtype": dtype}
        yield Case(
            "grouped magnitudes" if double else "plain magnitudes",
            arguments,
            partial(lambda s: (exact(*s),), stored),
            TOLERANCES[dtype],
            dtype,
            shape,
            1,
        )


def _quantize_cases() -> Iterator[Case]:
    for dtype, shape in product(DTYPES, ((8, 64), (33, 192), (2, 5, 576))):
        matrix = random(shape, dtype)
        found = mx.max(mx.abs(matrix.astype(mx.float32).reshape(*shape[:-1], -1, BLOCK)), axis=-1)
        arguments = {"matrix": matrix, "found": found}
        words = partial(lambda m, f: (_nearest_words(m, f),), matrix, found)
        yield Case("nearest values", arguments, words, 0, dtype, shape, 1)
    middles = (values()[:-1] + values()[1:]) * 0.5
    filled = mx.concatenate([middles, -middles, mx.zeros(2), values(), -values()]).reshape(1, BLOCK)
    for magnitude in (1.0, 2.0**-20, 0.0):  # exact products: a GPU may round others otherwise
        found = mx.full((1, 1), magnitude)
        arguments = {"matrix": filled * magnitude, "found": found}
        words = partial(lambda m, f: (_nearest_words(m, f),), arguments["matrix"], found)
        label = f"on the middles of values, times {magnitude:g}"
        yield Case(label, arguments, words, 0, mx.float32, (1, BLOCK), 1)


def _nearest_words(matrix: mx.array, found: mx.array) -> Reference:
    """:func:`quantize_codes` in NumPy, block by block; in float32 too, for a middle is a rounded number."""
    ascending = np.array(_VALUES, np.float32)
    middles = (ascending[:-1] + ascending[1:]) * np.float32(0.5)
    blocks = np.array(matrix.astype(mx.float32)).reshape(-1, BLOCK)
    codes = np.empty(blocks.shape, np.uint32)
    for block, magnitude in enumerate(np.array(found).reshape(-1)):
        codes[block] = np.searchsorted(middles * magnitude, blocks[block], side="left")
    words = (codes.reshape(-1, _WORD) << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    numbers: Reference = words.reshape(*matrix.shape[:-1], -1).astype(np.float64)
    return numbers


def _matvec_samples(work: Workload) -> Iterator[Sample]:
    for shape, rows_ in product(work.matrices, work.rows_within(1, 8)):
        if shape[1] % BLOCK == 0:
            stored = dict(zip(("weight", "scales", "biases"), arbitrary(shape), strict=True))
            yield Sample({"x": random((rows_, shape[1]), work.dtype), **stored}, shape, rows_)


def _dequantize_samples(work: Workload) -> Iterator[Sample]:
    for shape in work.matrices:
        if shape[1] % BLOCK == 0:
            stored = dict(zip(("weight", "scales", "biases"), arbitrary(shape), strict=True))
            yield Sample({**stored, "dtype": work.dtype}, shape, 1)


def _quantize_samples(work: Workload) -> Iterator[Sample]:
    for outputs, inputs in work.matrices:
        if inputs % BLOCK == 0:
            matrix = mx.random.normal((outputs, inputs), work.dtype, key=mx.random.key(0))
            found = mx.max(mx.abs(matrix.astype(mx.float32).reshape(outputs, -1, BLOCK)), axis=-1)
            mx.eval(matrix, found)
            yield Sample({"matrix": matrix, "found": found}, (outputs, inputs), 1)


def arbitrary(shape: tuple[int, int]) -> tuple[mx.array, mx.array, mx.array]:
    """A stored matrix of any values, at once."""
    outputs, inputs = shape
    pairs = mx.broadcast_to(mx.array([0.02, 0.05]), (groups(outputs * inputs // BLOCK), 2))
    stored = bits((outputs, inputs // _WORD)), bits((outputs, inputs // BLOCK), mx.uint8), pairs + 0
    mx.eval(stored)
    return stored


def _stored(shape: tuple[int, ...], double: bool) -> tuple[mx.array, mx.array, mx.array | None]:
    weight, scales, biases = quantize(random(shape) * 0.05)
    return (weight, scales, biases) if double else (weight, magnitudes(scales, biases), None)


def _matvec_case(
    label: str, x: mx.array, stored: tuple[mx.array, mx.array, mx.array | None], index: mx.array | None
) -> Case:
    arguments = dict(zip(("weight", "scales", "biases"), stored, strict=True)) | {"x": x, "index": index}

    def reference() -> tuple[Reference, ...]:
        whole, wide = exact(*stored), as_float64(x)
        if index is None:
            return (wide @ whole.T,)
        return (np.einsum("rnk,rk->rn", whole[np.array(index)], wide),)

    shape = (*stored[0].shape[:-1], x.shape[1])
    return Case(label, arguments, reference, TOLERANCES[x.dtype], x.dtype, shape, x.shape[0])


def exact(weight: mx.array, scales: mx.array, biases: mx.array | None) -> Reference:
    """:func:`dequantize` in float64, written without it."""
    words = np.array(weight)
    codes = (words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15
    blocks = np.array(_VALUES)[codes].reshape(*scales.shape, BLOCK)
    if biases is None:
        plain: Reference = blocks * as_float64(scales)[..., None]
        return plain.reshape(*words.shape[:-1], -1)
    blocks_of_one = scales.shape[-2] * scales.shape[-1]
    pairs = as_float64(biases).reshape(-1, groups(blocks_of_one), 2)
    found = as_float64(levels())[np.array(scales)].reshape(len(pairs), blocks_of_one)
    group = np.arange(blocks_of_one) // NF4_GROUP
    found = found * pairs[:, group, 0] + pairs[:, group, 1]
    whole: Reference = blocks * found.reshape(*scales.shape, 1)
    return whole.reshape(*words.shape[:-1], -1)


KERNELS = (
    Kernel(
        name="nf4_matvec",
        role="product",
        body=_MATVEC,
        modes=("nf4",),
        rows=(1, 8),
        bind=_bind_matvec,
        twin=_matvec_twin,
        cases=_matvec_cases,
        samples=_matvec_samples,
    ),
    Kernel(
        name="nf4_dequantize",
        role="dequantize",
        body=_DEQUANTIZE,
        modes=("nf4",),
        rows=(1, 1),
        bind=_bind_dequantize,
        twin=_dequantize_twin,
        cases=_dequantize_cases,
        samples=_dequantize_samples,
    ),
    Kernel(
        name="nf4_quantize",
        role="quantize",
        body=_QUANTIZE,
        modes=("nf4",),
        rows=(1, 1),
        bind=_bind_quantize,
        twin=_quantize_twin,
        cases=_quantize_cases,
        samples=_quantize_samples,
    ),
)
