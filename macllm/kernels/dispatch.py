"""Chooses how a quantized matrix is multiplied: by MLX, by a custom kernel, or by the kernel's plain twin.

Which kernels may run is settled once, at the first product, by ``MACLLM_KERNELS``, the device and the verdicts of its
trials; a call then costs one look into a table by storage, rows and type. Where nothing was chosen the matrix is
multiplied by MLX's own kernel, or, in modes that MLX does not have, expanded and multiplied.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import mlx.core as mx

from macllm.kernels import gguf_decode, nf4
from macllm.kernels.kernel import Kernel, Role, Runner
from macllm.kernels.permission import keeps_choices, permitted, setting
from macllm.kernels.registry import KERNELS
from macllm.kernels.runners import compiled
from macllm.quantization import BLOCKS, MLX_MODES, Mode, Quantization

MOST_ROWS = (
    8  # of one product by a kernel; beyond, expanding the matrix costs less than reading it again and again
)
MOST_GATHERED = 64  # rows with a matrix each

Chosen: TypeAlias = tuple[Kernel, Runner]
Product: TypeAlias = Callable[..., mx.array]  # of x, weight, scales, biases, index
Expand: TypeAlias = Callable[[mx.array, mx.array | None, mx.array | None, mx.Dtype], mx.array]


def _expand_nf4(
    weight: mx.array, scales: mx.array | None, biases: mx.array | None, dtype: mx.Dtype
) -> mx.array:
    assert scales is not None
    return nf4.dequantize(weight, scales, biases, dtype)


def _expand_blocks(
    mode: Mode, weight: mx.array, _: mx.array | None, __: mx.array | None, dtype: mx.Dtype
) -> mx.array:
    return gguf_decode.dequantize(weight, mode, dtype)


_EXPAND: Mapping[str, Expand] = {  # what defines each mode that MLX does not have
    "nf4": _expand_nf4,
    **{mode: partial(_expand_blocks, mode) for mode in BLOCKS},
}


def product(
    x: mx.array, q: Quantization, weight: mx.array, scales: mx.array | None, biases: mx.array | None
) -> mx.array:
    """``x @ W.T`` for x (..., I) and a matrix (O, I): (..., O)."""
    rows = math.prod(x.shape[:-1])
    if rows <= MOST_ROWS:
        multiply = _multiplying(q, x.dtype, rows)
        if multiply is not None:
            return multiply(x, weight, scales, biases, None)
    if q.mode in MLX_MODES:
        assert scales is not None
        return mx.quantized_matmul(x, weight, scales, biases, True, q.group_size, q.bits, q.mode)
    return x @ expand(q, weight, scales, biases, x.dtype).T


def gathered(
    x: mx.array,
    index: mx.array,
    q: Quantization,
    weight: mx.array,
    scales: mx.array | None,
    biases: mx.array | None,
) -> mx.array:
    """Rows x (..., 1, I), each times the matrix of ``index`` (...) in a stack (N, O, I): (..., 1, O).

    For modes that MLX does not have: of its own it gathers itself.
    """
    pairs = math.prod(index.shape)
    wide = mx.broadcast_to(x, (*index.shape, 1, x.shape[-1]))
    if pairs > MOST_GATHERED:  # the whole stack costs less than matrices again and again
        whole = expand(q, weight, scales, biases, x.dtype)
        return mx.gather_mm(wide, whole.swapaxes(-1, -2), rhs_indices=index)
    flat, rows = index.reshape(pairs), wide.reshape(pairs, -1)
    multiply = _multiplying(q, x.dtype, 1)
    if multiply is not None:
        y = multiply(rows, weight, scales, biases, flat.astype(mx.uint32))
    else:
        parts = [None if array is None else array[flat] for array in (weight, scales, biases)]
        assert parts[0] is not None
        y = expand(q, parts[0], parts[1], parts[2], x.dtype) @ rows[..., None]
    return y.reshape(*index.shape, 1, -1)


def expand(
    q: Quantization, weight: mx.array, scales: mx.array | None, biases: mx.array | None, dtype: mx.Dtype
) -> mx.array:
    """The matrix (O, I) or the stack (N, O, I) that is stored so."""
    if q.mode in MLX_MODES:
        assert scales is not None
        return mx.dequantize(weight, scales, biases, q.group_size, q.bits, q.mode, dtype=dtype)
    chosen = choose("dequantize", q, dtype, 1)
    if chosen is None:
        return _EXPAND[q.mode](weight, scales, biases, dtype)
    kernel, run = chosen
    return kernel(run, weight=weight, scales=scales, biases=biases, dtype=dtype)[0]


def pack(q: Quantization, matrix: mx.array) -> list[mx.array]:
    """A plain matrix (O, I) in storage: weight, scales and, in modes that have them, biases.

    Raises ValueError for a mode that is only read.
    """
    if q.mode in MLX_MODES:
        return list(mx.quantize(matrix, q.group_size, q.bits, q.mode))
    if q.mode == "nf4":
        chosen = choose("quantize", q, matrix.dtype, 1)
        return list(nf4.quantize(matrix, None if chosen is None else partial(_codes, chosen)))
    raise ValueError(f"mode {q.mode!r} is only read")


def _codes(chosen: Chosen, matrix: mx.array, magnitudes: mx.array) -> mx.array:
    kernel, run = chosen
    return kernel(run, matrix=matrix, found=magnitudes)[0]


def kept_blocks(dtype: mx.Dtype) -> frozenset[Mode]:
    """The types of a GGUF's blocks that are kept as they lie in the file, for a model computed in ``dtype``.

    Those that kernels multiply and, for prompts, expand; all where kernels are asked for, wherever the twins have to
    do; else none.
    """
    if setting() == "on":
        return frozenset(BLOCKS)
    roles: tuple[Role, ...] = ("product", "dequantize")
    return frozenset(
        mode
        for mode, block in BLOCKS.items()
        if all(choose(role, Quantization(block.bits, block.weights, mode), dtype, 1) for role in roles)
    )


def choose(role: Role, q: Quantization, dtype: mx.Dtype, rows: int) -> Chosen | None:
    """The kernel for a call and what runs it; None where MLX or the twin does it."""
    key = (role, q, dtype, rows)
    if key not in _chosen:
        _chosen[key] = _find(role, q, dtype, rows)
    return _chosen[key]


def storage(q: Quantization) -> str:
    """How a kernel's ``modes`` call it."""
    return f"affine {q.bits}-bit" if q.mode == "affine" else q.mode


_chosen: dict[tuple[Role, Quantization, mx.Dtype, int], Chosen | None] = {}
keeps_choices(_chosen.clear)


def _find(role: Role, q: Quantization, dtype: mx.Dtype, rows: int) -> Chosen | None:
    fitting = [
        kernel
        for kernel in KERNELS.values()
        if kernel.role == role
        and storage(q) in kernel.modes
        and dtype in kernel.dtypes
        and kernel.rows[0] <= rows <= kernel.rows[1]
    ]
    ranked: list[tuple[float, int, Chosen]] = []
    for kernel in fitting:
        # blocks are kept for the sake of decoding: at more rows there is nothing else but to expand them
        permit = permitted(kernel, dtype, rows if q.block is None else 1)
        if permit is not None:  # the quicker by its trial; untried, the one made for as many rows
            ranked.append((permit.ratio, kernel.rows[0], (kernel, permit.run)))
    return max(ranked, key=lambda each: each[:2])[2] if ranked else None


_products: dict[tuple[Quantization, mx.Dtype, int], Product | None] = {}
keeps_choices(_products.clear)


def _multiplying(q: Quantization, dtype: mx.Dtype, rows: int) -> Product | None:
    """What multiplies rows x (..., I) by a kernel; None where no kernel was chosen."""
    key = (q, dtype, rows)
    if key not in _products:
        chosen = choose("product", q, dtype, rows)
        _products[key] = None if chosen is None else _differentiable(chosen, q)
    return _products[key]


def _differentiable(chosen: Chosen, q: Quantization) -> Product:
    """A kernel's product with the gradient of its input, through the expanded matrix; the matrix has none."""
    kernel, run = chosen

    def forward(
        x: mx.array,
        weight: mx.array,
        scales: mx.array | None,
        biases: mx.array | None,
        index: mx.array | None,
    ) -> mx.array:
        chosen_by = {} if index is None else {"index": index}  # not every kernel chooses among matrices
        return kernel(run, x=x, weight=weight, scales=scales, biases=biases, **chosen_by)[0]

    function: Any = mx.custom_function(forward)

    @function.vjp  # type: ignore[untyped-decorator]
    def backward(primals: Any, cotangent: mx.array, _: mx.array) -> Any:
        x, weight, scales, biases, index = primals
        whole = expand(q, weight, scales, biases, x.dtype)
        if index is None:
            change = cotangent @ whole
        else:
            change = (cotangent[..., None, :] @ whole[index])[..., 0, :]
        others = [None if array is None else mx.zeros_like(array) for array in primals[1:]]
        return (change.astype(x.dtype), *others)

    def whole(x: mx.array, *stored: mx.array | None) -> mx.array:
        y: mx.array = function(x.reshape(-1, x.shape[-1]), *stored)
        return y.reshape(*x.shape[:-1], -1)

    return compiled(whole, run)
