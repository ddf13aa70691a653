"""The kernels of :mod:`macllm.kernels.nf4`: a few rows times a matrix, a matrix expanded, weights made codes."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import mlx.core as mx
import numpy as np

from macllm.kernels import nf4
from macllm.kernels.kernel import DTYPES, Body, Case, Kernel, Launch, Reference, Sample
from macllm.kernels.samples import TOLERANCES, as_float64, bits, random
from macllm.kernels.workload import Workload
from macllm.quantization import NF4_GROUP

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
    outputs, inputs = weight.shape[-2], weight.shape[-1] * nf4.WORD
    double, rows_ = biases is not None, x.shape[0]
    return Launch(
        _MATVEC,
        (
            x,
            weight,
            scales,
            mx.zeros(2) if biases is None else biases,
            nf4.levels(),
            mx.zeros(1, mx.uint32) if index is None else index,
        ),
        {"T": x.dtype, "K": inputs, "N": outputs, "GATHER": index is not None, "DOUBLE": double},
        (32 * rows_, 2 * -(-outputs // _ROWS), 1),
        (32, 2, 1),
        ((rows_, outputs),),
        (x.dtype,),
    )


def _bind_dequantize(weight: mx.array, scales: mx.array, biases: mx.array | None, dtype: mx.Dtype) -> Launch:
    outputs, inputs = weight.shape[-2], weight.shape[-1] * nf4.WORD
    double = biases is not None
    return Launch(
        _DEQUANTIZE,
        (weight, scales, mx.zeros(2) if biases is None else biases, nf4.levels()),
        {"T": dtype, "K": inputs, "N": outputs, "DOUBLE": double},
        (weight.size, 1, 1),
        (256, 1, 1),
        ((*weight.shape[:-1], inputs),),
        (dtype,),
    )


def _bind_quantize(matrix: mx.array, found: mx.array) -> Launch:
    words = (*matrix.shape[:-1], matrix.shape[-1] // nf4.WORD)
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
    return (nf4.matvec(**arguments),)


def _dequantize_twin(
    weight: mx.array, scales: mx.array, biases: mx.array | None, dtype: mx.Dtype
) -> tuple[mx.array, ...]:
    return (nf4.dequantize(weight, scales, biases, dtype),)


def _quantize_twin(matrix: mx.array, found: mx.array) -> tuple[mx.array, ...]:
    return (nf4.quantize_codes(matrix, found),)


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
        zeros = nf4.quantize(mx.zeros((12, 128)))
        yield _matvec_case("all zeros", random((2, 128), dtype), zeros, None)
        wild = nf4.quantize(random((24, 640)) * mx.power(10.0, random((24, 1))))
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
        found = mx.max(mx.abs(matrix.astype(mx.float32).reshape(*shape[:-1], -1, nf4.BLOCK)), axis=-1)
        arguments = {"matrix": matrix, "found": found}
        words = partial(lambda m, f: (_nearest_words(m, f),), matrix, found)
        yield Case("nearest values", arguments, words, 0, dtype, shape, 1)
    middles = (nf4.values()[:-1] + nf4.values()[1:]) * 0.5
    filled = mx.concatenate([middles, -middles, mx.zeros(2), nf4.values(), -nf4.values()]).reshape(
        1, nf4.BLOCK
    )
    for magnitude in (1.0, 2.0**-20, 0.0):  # exact products: a GPU may round others otherwise
        found = mx.full((1, 1), magnitude)
        arguments = {"matrix": filled * magnitude, "found": found}
        words = partial(lambda m, f: (_nearest_words(m, f),), arguments["matrix"], found)
        label = f"on the middles of values, times {magnitude:g}"
        yield Case(label, arguments, words, 0, mx.float32, (1, nf4.BLOCK), 1)


def _nearest_words(matrix: mx.array, found: mx.array) -> Reference:
    """What ``nf4.quantize_codes`` gives, in NumPy, block by block; in float32 too, for a middle is a rounded number."""
    ascending = np.array(nf4.VALUES, np.float32)
    middles = (ascending[:-1] + ascending[1:]) * np.float32(0.5)
    blocks = np.array(matrix.astype(mx.float32)).reshape(-1, nf4.BLOCK)
    codes = np.empty(blocks.shape, np.uint32)
    for block, magnitude in enumerate(np.array(found).reshape(-1)):
        codes[block] = np.searchsorted(middles * magnitude, blocks[block], side="left")
    words = (codes.reshape(-1, nf4.WORD) << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    numbers: Reference = words.reshape(*matrix.shape[:-1], -1).astype(np.float64)
    return numbers


def _matvec_samples(work: Workload) -> Iterator[Sample]:
    for shape, rows_ in product(work.matrices, work.rows_within(1, 8)):
        if shape[1] % nf4.BLOCK == 0:
            stored = dict(zip(("weight", "scales", "biases"), arbitrary(shape), strict=True))
            yield Sample({"x": random((rows_, shape[1]), work.dtype), **stored}, shape, rows_)


def _dequantize_samples(work: Workload) -> Iterator[Sample]:
    for shape in work.matrices:
        if shape[1] % nf4.BLOCK == 0:
            stored = dict(zip(("weight", "scales", "biases"), arbitrary(shape), strict=True))
            yield Sample({**stored, "dtype": work.dtype}, shape, 1)


def _quantize_samples(work: Workload) -> Iterator[Sample]:
    for outputs, inputs in work.matrices:
        if inputs % nf4.BLOCK == 0:
            matrix = mx.random.normal((outputs, inputs), work.dtype, key=mx.random.key(0))
            found = mx.max(mx.abs(matrix.astype(mx.float32).reshape(outputs, -1, nf4.BLOCK)), axis=-1)
            mx.eval(matrix, found)
            yield Sample({"matrix": matrix, "found": found}, (outputs, inputs), 1)


def arbitrary(shape: tuple[int, int]) -> tuple[mx.array, mx.array, mx.array]:
    """A stored matrix of any values, at once."""
    outputs, inputs = shape
    pairs = mx.broadcast_to(mx.array([0.02, 0.05]), (nf4.groups(outputs * inputs // nf4.BLOCK), 2))
    stored = bits((outputs, inputs // nf4.WORD)), bits((outputs, inputs // nf4.BLOCK), mx.uint8), pairs + 0
    mx.eval(stored)
    return stored


def _stored(shape: tuple[int, ...], double: bool) -> tuple[mx.array, mx.array, mx.array | None]:
    weight, scales, biases = nf4.quantize(random(shape) * 0.05)
    return (weight, scales, biases) if double else (weight, nf4.magnitudes(scales, biases), None)


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
    """:func:`macllm.kernels.nf4.dequantize` in float64, written without it."""
    words = np.array(weight)
    codes = (words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15
    blocks = np.array(nf4.VALUES)[codes].reshape(*scales.shape, nf4.BLOCK)
    if biases is None:
        plain: Reference = blocks * as_float64(scales)[..., None]
        return plain.reshape(*words.shape[:-1], -1)
    blocks_of_one = scales.shape[-2] * scales.shape[-1]
    pairs = as_float64(biases).reshape(-1, nf4.groups(blocks_of_one), 2)
    found = as_float64(nf4.levels())[np.array(scales)].reshape(len(pairs), blocks_of_one)
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
