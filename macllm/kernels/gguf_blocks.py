"""GGUF's block types as they lie in the file: matrix times vector, and dequantization.

A matrix (N, K), K a multiple of the block's weights, is stored as ``weight`` uint8 (N, row bytes), each row whole
blocks; a stack as (E, N, row bytes). All types share one body each for both kernels; what a type is says its header.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import product

import mlx.core as mx
import numpy as np

from macllm.kernels.gguf_decode import dequantize
from macllm.kernels.kernel import DTYPES, Body, Case, Kernel, Launch, Reference, Sample
from macllm.kernels.samples import TOLERANCES, as_float64, bits, random
from macllm.kernels.workload import Workload
from macllm.quantization import BLOCKS, Mode

_PART = 16  # weights that a thread takes at once
_ROWS = 8  # outputs of a threadgroup: two simdgroups of four
_TOGETHER = (1, 2, 4)  # rows of x that share one reading of the matrix
_THREADS = 256


def matvec(x: mx.array, weight: mx.array, kind: Mode, index: mx.array | None = None) -> mx.array:
    """Rows x (R, K) times a matrix, or each times that of ``index`` (R,) in a stack: (R, N), summed in float32."""
    wide = x.astype(mx.float32)
    if index is None:
        return (wide @ dequantize(weight, kind).T).astype(x.dtype)
    return (dequantize(weight[index], kind) @ wide[..., None])[..., 0].astype(x.dtype)


@cache
def _body(kind: Mode, what: str) -> Body:
    types = (f"gguf_{kind}",) if kind not in ("q4_k", "q5_k") else ("gguf_k_scales", f"gguf_{kind}")
    inputs = ("x", "weight", "index", "sizes") if what == "matvec" else ("weight", "count")
    return Body(f"{kind}_{what}", inputs, ("y",), ("gguf", *types), file=f"gguf_{what}")


@cache
def _numbers(*numbers: int) -> mx.array:
    """Small whole numbers as an argument, made once."""
    array = mx.array(numbers, mx.uint32)
    mx.eval(array)
    return array


def _bind_matvec(
    x: mx.array,
    weight: mx.array,
    scales: None = None,
    biases: None = None,
    index: mx.array | None = None,
    *,
    kind: Mode,
) -> Launch:
    (rows, inputs), outputs = x.shape, weight.shape[-2]
    together = 1 if index is not None else min((count for count in _TOGETHER if count >= rows), default=4)
    return Launch(
        _body(kind, "matvec"),
        (x, weight, _numbers(0) if index is None else index, _numbers(inputs, outputs, rows)),
        {"T": x.dtype, "V": together},
        (32 * -(-rows // together), 2 * -(-outputs // _ROWS), 1),
        (32, 2, 1),
        ((rows, outputs),),
        (x.dtype,),
    )


def _bind_dequantize(
    weight: mx.array, scales: None = None, biases: None = None, *, dtype: mx.Dtype, kind: Mode
) -> Launch:
    form = BLOCKS[kind]
    parts = weight.size // form.nbytes * (form.weights // _PART)
    inputs = weight.shape[-1] // form.nbytes * form.weights
    return Launch(
        _body(kind, "dequantize"),
        (weight, _numbers(parts)),
        {"T": dtype},
        (-(-parts // _THREADS) * _THREADS, 1, 1),  # whole threadgroups: each fills its table
        (_THREADS, 1, 1),
        ((*weight.shape[:-1], inputs),),
        (dtype,),
    )


def _matvec_twin(
    x: mx.array,
    weight: mx.array,
    scales: None = None,
    biases: None = None,
    index: mx.array | None = None,
    *,
    kind: Mode,
) -> tuple[mx.array, ...]:
    return (matvec(x, weight, kind, index),)


def _dequantize_twin(
    weight: mx.array, scales: None = None, biases: None = None, *, dtype: mx.Dtype, kind: Mode
) -> tuple[mx.array, ...]:
    return (dequantize(weight, kind, dtype),)


def _rival(
    x: mx.array, weight: mx.array, scales: mx.array | None = None, biases: mx.array | None = None
) -> tuple[mx.array, ...]:
    """What a matrix is multiplied by where its blocks are not kept: repacked for MLX, or expanded."""
    if scales is None:
        return (x @ weight.T,)
    packed = weight.shape[-1] * 32 // x.shape[-1]  # bits
    group = x.shape[-1] // scales.shape[-1]
    return (mx.quantized_matmul(x, weight, scales, biases, True, group, packed),)


# ---- samples: random blocks with scales in bounds ----

_HALVES: dict[Mode, tuple[int, ...]] = {  # where a block keeps its scale and its minimum
    **dict.fromkeys(("q4_0", "q5_0", "q8_0", "iq4_nl", "iq4_xs"), (0,)),
    **dict.fromkeys(("q4_1", "q5_1", "q4_k", "q5_k"), (0, 2)),
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q6_k": (208,),
}
_EXTREME = (0.0, -0.0, 2.0**-24, -(2.0**-24), 1000 * 2.0**-24, 2.0**-14, 65504.0, -65504.0)


def random_blocks(kind: Mode, rows: Sequence[int], inputs: int, extreme: bool = False) -> mx.array:
    """Rows (..., row bytes) of random codes; scales around 0.01, or all that halves can be at their limits."""
    form = BLOCKS[kind]
    rng = np.random.default_rng(zlib.crc32(f"{kind} {tuple(rows)} {inputs}".encode()))
    blocks = rng.integers(0, 256, (*rows, inputs // form.weights, form.nbytes), np.uint8)
    for at in _HALVES[kind]:
        lead = blocks.shape[:-1]
        halves = rng.choice(_EXTREME, lead) if extreme else rng.normal(0, 0.01, lead)
        blocks[..., at : at + 2] = halves.astype("<f2")[..., None].view(np.uint8)
    return mx.array(blocks.reshape(*rows, -1))


def _values(weight: mx.array, kind: Mode) -> Reference:
    """The matrix by the ``gguf`` package."""
    from gguf import GGMLQuantizationType  # 0.65 s to import
    from gguf.quants import dequantize as library

    values = library(np.array(weight), GGMLQuantizationType[kind.upper()])
    return np.asarray(values, np.float64)


def _matvec_cases(kind: Mode) -> Iterator[Case]:
    block = BLOCKS[kind].weights
    odd = {32: 19, 256: 3}[block] * block  # inputs: neither a power of two nor whole turns of a simdgroup
    for dtype in DTYPES:
        yield _matvec_case("one block", kind, random((1, block), dtype), (5,))
        yield _matvec_case("odd count of outputs", kind, random((3, odd), dtype), (21,))
        chosen = mx.array([2, 0, 2, 1], mx.uint32)
        yield _matvec_case("of a stack", kind, random((4, odd), dtype), (3, 10), chosen)
    each = mx.array([1, 1, 0, 2, 0, 2, 2, 1], mx.uint32)  # eight: no longer in constant memory
    yield _matvec_case("of a stack, many rows", kind, random((8, odd)), (3, 10), each)
    yield _matvec_case("more rows than are taken at once", kind, random((5, odd)), (8,))
    yield _matvec_case("as many rows as twice are taken at once", kind, random((8, odd)), (8,))
    yield _matvec_case("scales at their limits", kind, random((2, odd)), (12,), extreme=True)


def _matvec_case(
    label: str,
    kind: Mode,
    x: mx.array,
    rows: tuple[int, ...],
    index: mx.array | None = None,
    extreme: bool = False,
) -> Case:
    count, inputs = x.shape
    weight = random_blocks(kind, rows, inputs, extreme)

    def reference() -> tuple[Reference, ...]:
        whole, wide = _values(weight, kind), as_float64(x)
        if index is None:
            return (wide @ whole.T,)
        return (np.einsum("rnk,rk->rn", whole[np.array(index)], wide),)

    arguments = {"x": x, "weight": weight, "index": index}
    return Case(label, arguments, reference, TOLERANCES[x.dtype], x.dtype, (*rows, inputs), count)


def _dequantize_cases(kind: Mode) -> Iterator[Case]:
    inputs = 3 * BLOCKS[kind].weights
    for dtype in DTYPES:
        tolerance = 0 if dtype == mx.float32 else TOLERANCES[dtype]
        for label, rows, extreme in (
            ("odd count of rows", (7,), False),
            ("of a stack", (2, 5), False),
            *([("scales at their limits", (9,), True)] if dtype != mx.float16 else []),  # which are beyond it
        ):
            weight = random_blocks(kind, rows, inputs, extreme)
            reference = partial(lambda w: (_values(w, kind),), weight)
            arguments = {"weight": weight, "dtype": dtype}
            yield Case(label, arguments, reference, tolerance, dtype, (*rows, inputs), 1)


def _matvec_samples(work: Workload, kind: Mode) -> Iterator[Sample]:
    for shape, rows in product(_fitting(work, kind), work.rows_within(1, 8)):
        x = random((rows, shape[1]), work.dtype)
        arguments = {"x": x, "weight": _arbitrary(shape, kind)}
        yield Sample(arguments, shape, rows, {"x": x, **_other_form(shape, kind, work.dtype)})


def _dequantize_samples(work: Workload, kind: Mode) -> Iterator[Sample]:
    for shape in _fitting(work, kind):
        yield Sample({"weight": _arbitrary(shape, kind), "dtype": work.dtype}, shape, 1)


def _fitting(work: Workload, kind: Mode) -> list[tuple[int, int]]:
    return [shape for shape in work.matrices if shape[1] % BLOCKS[kind].weights == 0]


def _arbitrary(shape: tuple[int, int], kind: Mode) -> mx.array:
    """A large matrix of any codes, with scales of 2 ** -7."""
    form, (outputs, inputs) = BLOCKS[kind], shape
    blocks = bits((outputs, inputs // form.weights, form.nbytes), mx.uint8)
    for at in _HALVES[kind]:
        blocks[..., at : at + 2] = mx.array([0, 0x20], mx.uint8)
    mx.eval(blocks)
    return blocks.reshape(outputs, -1)


def _other_form(shape: tuple[int, int], kind: Mode, dtype: mx.Dtype) -> dict[str, mx.array]:
    """What :func:`_rival` takes for a matrix of this size."""
    (outputs, inputs), packed = shape, BLOCKS[kind].repacked
    if packed is None:
        return {"weight": mx.random.normal(shape, dtype, scale=0.02, key=mx.random.key(0))}
    groups = mx.full((outputs, inputs // packed.group_size), 0.01, dtype)
    return {"weight": bits((outputs, inputs * packed.bits // 32)), "scales": groups, "biases": -groups}


def _kernels(kind: Mode) -> tuple[Kernel, Kernel]:
    return (
        Kernel(
            f"{kind}_matvec",
            "product",
            _body(kind, "matvec"),
            (kind,),
            (1, 8),
            partial(_bind_matvec, kind=kind),
            partial(_matvec_twin, kind=kind),
            partial(_matvec_cases, kind),
            samples=partial(_matvec_samples, kind=kind),
            rival=_rival,
        ),
        Kernel(
            f"{kind}_dequantize",
            "dequantize",
            _body(kind, "dequantize"),
            (kind,),
            (1, 1),
            partial(_bind_dequantize, kind=kind),
            partial(_dequantize_twin, kind=kind),
            partial(_dequantize_cases, kind),
            samples=partial(_dequantize_samples, kind=kind),
        ),
    )


KERNELS = tuple(kernel for kind in BLOCKS for kernel in _kernels(kind))
