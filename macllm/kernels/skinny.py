"""Two to eight rows of x times a packed matrix, each weight read and unpacked once for all of them.

For the verification of drafts and for small batches, where MLX's matrix-vector kernels unpack a weight again for every
row and its matrix kernels compute 32 rows. Eight rows cost as much as two: the rows are a side of an 8x8
matrix product, and those past the last are zeros that are never read. Sums are in float32, and so are the weights
that go into them. K is a multiple of the group size (of 64 in NF4); N is any.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import mlx.core as mx

from macllm.kernels import affine, nf4, nf4_kernels
from macllm.kernels.kernel import DTYPES, Body, Case, Kernel, Launch, Reference, Sample, Template
from macllm.kernels.samples import TOLERANCES, as_float64, random
from macllm.kernels.workload import Workload

ROWS = (2, 8)
_TIMED = (2, 3, 4, 6, 8)  # rows: what it gains at eight says nothing of two
_AFFINE = Body("skinny_affine", ("x", "weight", "scales", "biases"), ("y",), ("skinny",), portable=False)
_NF4 = Body(
    "skinny_nf4", ("x", "weight", "codes", "seconds", "levels"), ("y",), ("nf4", "skinny"), portable=False
)
_SIMDGROUPS = 8  # of a threadgroup
_OUTPUTS = 32  # of a threadgroup


def _bind_affine(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> Launch:
    group_size, bits = affine.layout(x.shape[1], weight, scales)
    template: Template = {"T": x.dtype, "K": x.shape[1], "N": weight.shape[0], "GS": group_size, "BITS": bits}
    return _launch(_AFFINE, (x, weight, scales, biases), template)


def _bind_nf4(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array | None = None) -> Launch:
    seconds = mx.zeros(2) if biases is None else biases
    template: Template = {"T": x.dtype, "K": x.shape[1], "N": weight.shape[0], "DOUBLE": biases is not None}
    return _launch(_NF4, (x, weight, scales, seconds, nf4.levels()), template)


def _launch(body: Body, inputs: tuple[mx.array, ...], template: Template) -> Launch:
    x, weight = inputs[:2]
    outputs = weight.shape[0]
    return Launch(
        body,
        inputs,
        template,
        (32, _SIMDGROUPS * -(-outputs // _OUTPUTS), 1),
        (32, _SIMDGROUPS, 1),
        ((x.shape[0], outputs),),
        (x.dtype,),
    )


def _affine_twin(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> tuple[mx.array, ...]:
    return (affine.product(x, weight, scales, biases).astype(x.dtype),)


def _nf4_twin(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array | None = None
) -> tuple[mx.array, ...]:
    return (nf4.matvec(x, weight, scales, biases),)


def _affine_cases(bits: int) -> Iterator[Case]:
    """Every count of rows, every type; one group; more groups than simdgroups; numbers of very different sizes."""
    for dtype, rows in _types_and_rows():
        yield _affine_case("odd outputs and groups", (33, 192), rows, dtype, 64, bits)
    yield _affine_case("one group", (8, 32), 2, mx.float32, 32, bits)
    yield _affine_case("one group", (8, 32), 5, mx.bfloat16, 32, bits)
    yield _affine_case("more groups than simdgroups", (70, 1152), 3, mx.float32, 128, bits)
    yield _affine_case("more groups than simdgroups", (70, 1152), 8, mx.float16, 128, bits)
    for dtype in DTYPES:
        yield _affine_case("rows of very different sizes", (33, 192), 7, dtype, 64, bits, wild=True)


def _types_and_rows() -> Iterator[tuple[mx.Dtype, int]]:
    """Every count of rows in one type, some in the others: counts are no part of what is compiled."""
    for rows in range(ROWS[0], ROWS[1] + 1):
        yield mx.float16, rows
    yield from product((mx.float32, mx.bfloat16), (3, ROWS[1]))


def _affine_case(
    label: str,
    shape: tuple[int, int],
    rows: int,
    dtype: mx.Dtype,
    group_size: int,
    bits: int,
    *,
    wild: bool = False,
) -> Case:
    x = random((rows, shape[1]), dtype)
    stored = affine.sample(shape, group_size, bits, dtype, wild=wild)
    arguments = dict(zip(("weight", "scales", "biases"), stored, strict=True))

    def reference() -> tuple[Reference, ...]:
        return (as_float64(x) @ affine.exact(*stored, bits).T,)

    return Case(label, arguments | {"x": x}, reference, TOLERANCES[dtype], dtype, shape, rows)


def _nf4_cases() -> Iterator[Case]:
    """Every count of rows, every type; plain magnitudes; one block; more blocks than simdgroups; zeros; other sizes."""
    for dtype, rows in _types_and_rows():
        yield _nf4_case("grouped magnitudes", random((33, 192)), random((rows, 192), dtype))
    yield _nf4_case("plain magnitudes", random((33, 192)), random((7, 192), mx.bfloat16), double=False)
    yield _nf4_case("one block", random((8, 64)), random((2, 64), mx.float16))
    yield _nf4_case("more blocks than simdgroups", random((70, 640)), random((5, 640)))
    for dtype in DTYPES:
        x, sizes = random((5, 192), dtype), mx.power(10.0, random((33, 1)))
        yield _nf4_case("all zeros", mx.zeros((33, 192)), x)
        yield _nf4_case("rows of very different sizes", random((33, 192)) * sizes, x)


def _nf4_case(label: str, matrix: mx.array, x: mx.array, *, double: bool = True) -> Case:
    weight, scales, biases = nf4.quantize(matrix)
    if double:
        stored = {"weight": weight, "scales": scales, "biases": biases}
    else:
        stored = {"weight": weight, "scales": nf4.magnitudes(scales, biases)}

    def reference() -> tuple[Reference, ...]:
        whole = nf4_kernels.exact(weight, stored["scales"], stored.get("biases"))
        return (as_float64(x) @ whole.T,)

    shape = (matrix.shape[0], matrix.shape[1])
    return Case(label, {"x": x, **stored}, reference, TOLERANCES[x.dtype], x.dtype, shape, x.shape[0])


def _affine_rival(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> tuple[mx.array, ...]:
    return (affine.mlx_product(x, weight, scales, biases),)


def _affine_samples(bits: int, work: Workload) -> Iterator[Sample]:
    return _samples(lambda shape: affine.arbitrary(shape, bits, work.dtype), work)


def _nf4_samples(work: Workload) -> Iterator[Sample]:
    return _samples(nf4_kernels.arbitrary, work)


def _samples(stored: Callable[[tuple[int, int]], affine.Stored], work: Workload) -> Iterator[Sample]:
    for shape in work.matrices:
        if shape[1] % nf4.BLOCK == 0:
            parts = dict(zip(("weight", "scales", "biases"), stored(shape), strict=True))
            for rows in _TIMED:
                yield Sample({"x": random((rows, shape[1]), work.dtype), **parts}, shape, rows)


KERNELS = (
    *(
        Kernel(
            name=f"skinny_affine{bits}",
            role="product",
            body=_AFFINE,
            modes=(f"affine {bits}-bit",),
            rows=ROWS,
            bind=_bind_affine,
            twin=_affine_twin,
            cases=partial(_affine_cases, bits),
            samples=partial(_affine_samples, bits),
            rival=_affine_rival,
        )
        for bits in affine.BITS
    ),
    Kernel(
        name="skinny_nf4",
        role="product",
        body=_NF4,
        modes=("nf4",),
        rows=ROWS,
        bind=_bind_nf4,
        twin=_nf4_twin,
        cases=_nf4_cases,
        samples=_nf4_samples,
    ),
)
