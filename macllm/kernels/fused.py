"""Small fusions of decoding. What they save is launches: the numbers that pass between the joined launches are few.

Counted per token, not measured (half-precision activations; weights at 4.5 bits: 0.70 and 4.5 GB a token):

===================  ==============================================  ====================  ====================
fusion               in place of                                     Llama-3.2-1B          Llama-3.1-8B
===================  ==============================================  ====================  ====================
gate + up + SwiGLU   product of the stacked matrix, activation       16 launches, 1.0 MB   32 launches, 3.7 MB
residual + RMSNorm   sum, norm (between mixer and channel block)     16 launches, 0.07 MB  32 launches, 0.26 MB
both                 of all launches of a token                      32 of 214             64 of 422
===================  ==============================================  ====================  ====================

At 2 us a launch and 273 GB/s that is 0.06 of 2.6 ms (1B) and 0.13 of 16.5 ms (8B): worth it for small models, and
nothing that a trial on the chip would not have to show first.

Not built: rope and the write of keys and values in one. Today these are three launches: rope over queries and keys
side by side, and two slice updates in place, which move the new token's 2 KB (1B) or 4 KB (8B) a layer and no more.
A kernel's outputs are fresh arrays. If it gave the whole buffers it would copy them: at 4096 tokens 0.27 GB (1B) or
0.54 GB (8B) read and written again, a third of the weights' bytes and more. If it gave the new rows only, the two
updates would still follow, and no launch would be saved.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import mlx.core as mx
import numpy as np

from macllm.kernels import affine
from macllm.kernels.kernel import DTYPES, Body, Case, Kernel, Launch, Reference, Sample
from macllm.kernels.samples import TOLERANCES, as_float64, random
from macllm.kernels.workload import Workload

SWIGLU_ROWS = (1, 3)
ADD_NORM_ROWS = (1, 8)
_SWIGLU = Body("swiglu_affine", ("x", "weight", "scales", "biases"), ("y",))
_ADD_NORM = Body("add_norm", ("x", "y", "weight", "eps"), ("s", "n"))
_OUTPUTS = 4  # of a threadgroup of SwiGLU: two simdgroups of two
_MOST_THREADS = 1024  # of a threadgroup
_KEPT = 4  # numbers of a row that a thread keeps, where there are threads enough


def swiglu(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> mx.array:
    """``silu(gate(x)) * up(x)`` for rows x (R, K) and gate above up in one matrix (2 H, K): (R, H)."""
    gate, up = mx.split(affine.product(x, weight, scales, biases), 2, axis=-1)
    return (gate * mx.sigmoid(gate) * up).astype(x.dtype)


def add_norm(x: mx.array, y: mx.array, weight: mx.array, eps: float) -> tuple[mx.array, mx.array]:
    """``x + y`` for rows (R, D), and its RMSNorm with ``weight`` (D,)."""
    total = x + y
    return total, mx.fast.rms_norm(total, weight, eps)


def _bind_swiglu(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> Launch:
    rows, inputs = x.shape
    outputs = weight.shape[0] // 2
    group_size, bits = affine.layout(inputs, weight, scales)
    return Launch(
        _SWIGLU,
        (x, weight, scales, biases),
        {"T": x.dtype, "K": inputs, "H": outputs, "R": rows, "GS": group_size, "BITS": bits},
        (32, 2 * -(-outputs // _OUTPUTS), 1),
        (32, 2, 1),
        ((rows, outputs),),
        (x.dtype,),
    )


def _bind_add_norm(x: mx.array, y: mx.array, weight: mx.array, eps: float) -> Launch:
    rows, width = x.shape
    threads = min(-(-width // (32 * _KEPT)) * 32, _MOST_THREADS)
    return Launch(
        _ADD_NORM,
        (x, y, weight, _number(eps)),
        {"T": x.dtype, "D": width, "THREADS": threads},
        (threads, rows, 1),
        (threads, 1, 1),
        (x.shape, x.shape),
        (x.dtype, x.dtype),
    )


@cache
def _number(value: float) -> mx.array:
    return mx.array([value])


def _swiglu_twin(**arguments: mx.array) -> tuple[mx.array, ...]:
    return (swiglu(**arguments),)


def _swiglu_cases(bits: int) -> Iterator[Case]:
    """Every type; an odd count of outputs; one group and an odd number; exponentials that overflow."""
    for dtype in DTYPES:
        yield _swiglu_case("odd outputs and groups", (13, 192), 1, dtype, 64, bits)
        yield _swiglu_case("rows of very different sizes", (13, 192), 1, dtype, 64, bits, wild=True)
    yield _swiglu_case("three rows", (13, 192), 3, mx.float16, 64, bits)
    yield _swiglu_case("three rows, large gates", (13, 192), 3, mx.float16, 64, bits, wild=True)
    yield _swiglu_case("two rows, one group", (6, 32), 2, mx.float32, 32, bits)
    yield _swiglu_case("more words than lanes", (5, 1152), 1, mx.bfloat16, 128, bits)


def _swiglu_case(
    label: str,
    shape: tuple[int, int],
    rows: int,
    dtype: mx.Dtype,
    group_size: int,
    bits: int,
    *,
    wild: bool = False,
) -> Case:
    outputs, inputs = shape
    x = random((rows, inputs), dtype)
    stored = affine.sample((2 * outputs, inputs), group_size, bits, dtype, wild=wild)

    def reference() -> tuple[Reference, ...]:
        gate, up = np.split(as_float64(x) @ affine.exact(*stored, bits).T, 2, axis=-1)
        return (gate * 0.5 * (1 + np.tanh(gate / 2)) * up,)

    arguments = {"x": x, **dict(zip(("weight", "scales", "biases"), stored, strict=True))}
    return Case(label, arguments, reference, TOLERANCES[dtype], dtype, (2 * outputs, inputs), rows)


def _add_norm_cases() -> Iterator[Case]:
    """Every type; rows shorter than a simdgroup, of odd lengths, longer than all threads; sums of nearly nothing."""
    for dtype in DTYPES:
        x, y = random((3, 1001), dtype), random((3, 1001)).astype(dtype) * 3
        yield _add_norm_case("odd length", x, y)
        yield _add_norm_case("large", x * 1000, y * 1000)
        yield _add_norm_case("small", x * 1e-3, y * 1e-3)
        yield _add_norm_case("nothing remains", x, -x)
    yield _add_norm_case("shorter than a simdgroup", random((1, 20), mx.float16), random((1, 20), mx.float16))
    longer = (2, 5000)
    yield _add_norm_case(
        "more numbers than threads", random(longer, mx.bfloat16), random(longer, mx.bfloat16) * 2
    )


def _add_norm_case(label: str, x: mx.array, y: mx.array) -> Case:
    rows, width = x.shape
    weight, eps = random((width,), x.dtype) + 1, 1e-5

    def reference() -> tuple[Reference, ...]:
        total = as_float64(x) + as_float64(y)
        mean = np.mean(total**2, axis=-1, keepdims=True)
        return total, total / np.sqrt(mean + eps) * as_float64(weight)

    arguments = {"x": x, "y": y, "weight": weight, "eps": eps}
    return Case(label, arguments, reference, TOLERANCES[x.dtype], x.dtype, (width,), rows)


def _swiglu_rival(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> tuple[mx.array, ...]:
    both = affine.mlx_product(x, weight, scales, biases)
    gate = _compiled_gate() if mx.default_device().type == mx.DeviceType.gpu else _gate
    return (gate(*mx.split(both, 2, axis=-1)),)


def _gate(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


@cache
def _compiled_gate() -> Callable[[mx.array, mx.array], mx.array]:
    return mx.compile(_gate, shapeless=True)


def _swiglu_samples(bits: int, work: Workload) -> Iterator[Sample]:
    """A model's matrices, each as if one half were the gate and one the up projection."""
    for shape in work.matrices:
        if shape[0] % 2 == 0 and shape[1] % 64 == 0:
            stored = affine.arbitrary(shape, bits, work.dtype)
            parts = dict(zip(("weight", "scales", "biases"), stored, strict=True))
            for rows in range(SWIGLU_ROWS[0], SWIGLU_ROWS[1] + 1):
                yield Sample({"x": random((rows, shape[1]), work.dtype), **parts}, shape, rows)


def _add_norm_samples(work: Workload) -> Iterator[Sample]:
    weight = mx.ones(work.dim, work.dtype)
    for rows in work.rows_within(*ADD_NORM_ROWS):
        x = random((rows, work.dim), work.dtype)
        yield Sample({"x": x, "y": x[:, ::-1], "weight": weight, "eps": 1e-5}, (work.dim,), rows)


SWIGLU = {
    bits: Kernel(
        name=f"swiglu_affine{bits}",
        role="fusion",
        body=_SWIGLU,
        modes=(f"affine {bits}-bit",),
        rows=SWIGLU_ROWS,
        bind=_bind_swiglu,
        twin=_swiglu_twin,
        cases=partial(_swiglu_cases, bits),
        samples=partial(_swiglu_samples, bits),
        rival=_swiglu_rival,
    )
    for bits in affine.BITS
}
ADD_NORM = Kernel(
    name="add_norm",
    role="fusion",
    body=_ADD_NORM,
    modes=("plain",),
    rows=ADD_NORM_ROWS,
    bind=_bind_add_norm,
    twin=add_norm,
    cases=_add_norm_cases,
    samples=_add_norm_samples,
)
KERNELS = (*SWIGLU.values(), ADD_NORM)
