"""Chooses whether a few rows' operations run joined, by a kernel of :mod:`macllm.kernels.fused`.

Where no kernel can run at all, blocks know it from their load on and never ask. Where one can, a call costs one look
into a table by kernel, type and rows; None means that the operations run one by one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import mlx.core as mx

from macllm.kernels.fused import ADD_NORM, SWIGLU
from macllm.kernels.kernel import Kernel, Runner
from macllm.kernels.permission import keeps_choices, permitted, runner, setting
from macllm.kernels.runners import compiled
from macllm.quantization import Quantization

Fusion: TypeAlias = Callable[..., Sequence[mx.array]]

_MOST_ROWS = max(kernel.rows[1] for kernel in (ADD_NORM, *SWIGLU.values()))


def possible() -> bool:
    """Whether any fusion may ever run in this process."""
    return setting() != "off" and runner() is not None


def fuses_swiglu(q: Quantization) -> bool:
    """Whether gate and up in one matrix stored so may ever run joined with their activation."""
    return q.mode == "affine" and q.bits in SWIGLU and possible()


def swiglu(
    x: mx.array, q: Quantization, weight: mx.array, scales: mx.array, biases: mx.array
) -> mx.array | None:
    """``silu(gate(x)) * up(x)`` for x (..., I) and gate above up in one matrix (2 H, I): (..., H)."""
    fusion = _chosen(SWIGLU[q.bits], x, 1)
    if fusion is None or scales.dtype != x.dtype:
        return None
    return fusion(x, weight, scales, biases)[0]


def add_norm(x: mx.array, y: mx.array, weight: mx.array, eps: float) -> tuple[mx.array, mx.array] | None:
    """``x + y``, both (..., D), and its RMSNorm with ``weight`` (D,)."""
    fusion = _chosen(ADD_NORM, x, 3, eps=eps)
    if fusion is None or not x.dtype == y.dtype == weight.dtype:
        return None
    total, normed = fusion(x, y, weight)
    return total, normed


_table: dict[tuple[str, mx.Dtype, int, float | None], Fusion | None] = {}
keeps_choices(_table.clear)


def _chosen(kernel: Kernel, x: mx.array, moving: int, eps: float | None = None) -> Fusion | None:
    """The kernel for rows like those of x, as a function of arrays; gradients flow to the first ``moving`` of them."""
    rows = x.size // x.shape[-1]
    if rows > _MOST_ROWS:
        return None
    key = (kernel.name, x.dtype, rows, eps)
    if key not in _table:
        permit = permitted(kernel, x.dtype, rows) if kernel.rows[0] <= rows <= kernel.rows[1] else None
        numbers = {} if eps is None else {"eps": eps}
        _table[key] = None if permit is None else _differentiable(kernel, permit.run, moving, numbers)
    return _table[key]


def _differentiable(kernel: Kernel, run: Runner, moving: int, numbers: Mapping[str, float]) -> Fusion:
    """The kernel with its twin's gradients, for rows of any leading shape (..., I)."""

    def named(arrays: Iterable[mx.array]) -> dict[str, Any]:
        return {**dict(zip(kernel.body.inputs, arrays, strict=False)), **numbers}

    function: Any = mx.custom_function(lambda *arrays: list(kernel(run, **named(arrays))))

    @function.vjp  # type: ignore[untyped-decorator]
    def backward(primals: Any, cotangents: Any, _: Any) -> Any:
        fixed = primals[moving:]

        def twin(*moved: mx.array) -> list[mx.array]:
            return list(kernel.twin(**named((*moved, *fixed))))

        _, changes = mx.vjp(twin, list(primals[:moving]), list(cotangents))
        return (*changes, *(mx.zeros_like(array) for array in fixed))

    def whole(*arrays: mx.array) -> list[mx.array]:
        flat = (array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array for array in arrays)
        return [array.reshape(*arrays[0].shape[:-1], -1) for array in function(*flat)]

    return compiled(whole, run)
