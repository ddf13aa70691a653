"""Matrices as layers: dense or packed, one or several stacked along the output, and the embedding.

Several projections of one input (q/k/v, gate/up) are one matrix where their storage allows it: fewer kernel
launches a token on every backend. ``tensors`` undoes that by name on the way out.
"""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm import blas
from macllm.kernels import dispatch, fusions
from macllm.nn.stored import Dense, Packed, Stored, concatenate
from macllm.quantization import MLX_MODES

# OpenBLAS on x86 copies a matrix into its own layout before it multiplies, for one row too (4 GB/s instead of 14),
# unless the product has at most so many outputs and multiplications.
_UNCOPIED_OUTPUTS, _UNCOPIED_PRODUCT = 1200, 1_000_000
_FEWEST_ROWS = 16  # of a slice; below, calls cost more than copies


@dataclass(frozen=True)
class Part:
    """One named matrix inside a layer's stacked ones: its canonical name and output width."""

    name: str
    width: int


class Linear(Module):
    """``x @ weight.T + bias`` with a plain weight (O, I)."""

    def __init__(self, parts: Sequence[Part], weight: mx.array, bias: mx.array | None) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.weight = weight
        if bias is not None:
            self.bias = bias
        copies = blas.name() == "openblas" and platform.machine() == "x86_64"
        self._slices = uncopied_slices(*weight.shape) if copies else 1

    def __call__(self, x: mx.array) -> mx.array:
        weight: mx.array = self["weight"]
        bias: mx.array | None = self.get("bias")
        if self._slices > 1 and x.size == x.shape[-1]:
            y = sliced_product(x, weight, self._slices)
            return y if bias is None else y + bias
        return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        yield from _by_part(self.parts, Dense(self.weight), self.get("bias"))


class PackedLinear(Module):
    """``x @ W.T + bias`` with a quantized W.

    From ``dense_rows`` rows of input on, W is dequantized and multiplied by the dense kernel: on CPU the
    quantized kernel works row by row (None: never).
    """

    def __init__(
        self, parts: Sequence[Part], packed: Packed, bias: mx.array | None, dense_rows: int | None
    ) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.quantization = packed.quantization
        self.dense_rows = dense_rows
        self.weight = packed.weight
        if packed.scales is not None:
            self.scales = packed.scales
        if packed.biases is not None:
            self.biases = packed.biases
        if bias is not None:
            self.bias = bias
        self._fuses = bias is None and fusions.fuses_swiglu(packed.quantization)
        self.freeze()

    @property
    def packed(self) -> Packed:
        return Packed(self.weight, self.get("scales"), self.get("biases"), self.quantization)

    def __call__(self, x: mx.array) -> mx.array:
        if self.dense_rows is not None and x.size // x.shape[-1] >= self.dense_rows:
            y = x @ self.packed.dequantize(x.dtype).T
        else:
            y = packed_matmul(x, self.packed)
        return y + self.bias if "bias" in self else y

    def swiglu(self, x: mx.array) -> mx.array | None:
        """``silu(gate) * up`` of gate and up stacked in one kernel; None where none was chosen."""
        if not self._fuses:
            return None
        return fusions.swiglu(x, self.quantization, self["weight"], self["scales"], self["biases"])

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        yield from _by_part(self.parts, self.packed, self.get("bias"))


class SeparateLinear(Module):
    """Several projections of one input whose storage differs; outputs side by side as if they were stacked."""

    def __init__(self, members: Sequence["Linear | PackedLinear"]) -> None:
        super().__init__()
        self.members = list(members)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.concatenate([member(x) for member in self.members], axis=-1)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        for member in self.members:
            yield from member.tensors()


class RoundedLinear(Module):
    """A layer whose inputs are rounded first (BitNet b1.58, arXiv 2402.17764)."""

    def __init__(self, inner: "Linear | PackedLinear | SeparateLinear") -> None:
        super().__init__()
        self.inner = inner

    def __call__(self, x: mx.array) -> mx.array:
        return self.inner(rounded(x))

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        yield from self.inner.tensors()


AnyLinear: TypeAlias = Linear | PackedLinear | SeparateLinear | RoundedLinear


class Embedding(Module):
    """Rows of a matrix (V, D) by token id; also the head of a model with tied embeddings."""

    def __init__(self, table: Linear | PackedLinear, dtype: mx.Dtype) -> None:
        super().__init__()
        self.table = table
        self._dtype = dtype

    def __call__(self, ids: mx.array) -> mx.array:
        """(B, L) ids to (B, L, D)."""
        if isinstance(self.table, PackedLinear):
            rows = self.table.packed.rows(ids.reshape(-1))
            return rows.dequantize(self._dtype).reshape(*ids.shape, -1)
        return self.table.weight[ids]

    def as_head(self, x: mx.array) -> mx.array:
        """(B, L, D) to logits (B, L, V)."""
        return self.table(x)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        return self.table.tensors()


def sliced_product(x: mx.array, weight: mx.array, slices: int) -> mx.array:
    """``x @ weight.T`` of one row x (1, ..., I), as a batch of products with slices of the weight (O, I)."""
    outputs, inputs = weight.shape
    parts = weight.reshape(slices, outputs // slices, inputs).swapaxes(1, 2)  # (S, I, O / S), a view
    return (x.reshape(1, inputs) @ parts).reshape(*x.shape[:-1], outputs)


def uncopied_slices(outputs: int, inputs: int) -> int:
    """The fewest equal slices of a matrix whose product with one row OpenBLAS takes as it lies; 1 where none are."""
    fewest = max(-(-outputs // _UNCOPIED_OUTPUTS), -(-outputs * inputs // _UNCOPIED_PRODUCT))
    return next((n for n in range(fewest, outputs // _FEWEST_ROWS + 1) if outputs % n == 0), 1)


def rounded(x: mx.array) -> mx.array:
    """Each row of ``x`` (..., I) rounded to 127 steps to its largest magnitude."""
    wide = x.astype(mx.float32)
    steps = 127 / mx.maximum(mx.max(mx.abs(wide), axis=-1, keepdims=True), 1e-5)
    return (mx.round(wide * steps) / steps).astype(x.dtype)


def packed_matmul(x: mx.array, packed: Packed) -> mx.array:
    """``x @ W.T``, the matrix as it is stored."""
    return dispatch.product(x, packed.quantization, packed.weight, packed.scales, packed.biases)


def packed_gather(x: mx.array, index: mx.array, packed: Packed, *, ordered: bool) -> mx.array:
    """Rows x (..., 1, I), each through the matrix of ``index`` (...) in a stack: (..., 1, O)."""
    q, weight, biases = packed.quantization, packed.weight, packed.biases
    if q.mode not in MLX_MODES:
        return dispatch.gathered(x, index, q, weight, packed.scales, biases)
    return mx.gather_qmm(
        x,
        weight,
        packed.group_scales,
        biases,
        None,
        index,
        True,
        q.group_size,
        q.bits,
        q.mode,
        sorted_indices=ordered,
    )


def make_linear(
    parts: Sequence[Part], stored: Sequence[Stored], biases: Sequence[mx.array] | None, dense_rows: int | None
) -> Linear | PackedLinear | SeparateLinear:
    """One layer of the ``parts``, stacked where their storage is the same."""
    try:
        whole = concatenate(list(stored)) if len(stored) > 1 else stored[0]
    except ValueError:
        each = [biases[i : i + 1] if biases is not None else None for i in range(len(parts))]
        members = [
            make_linear([part], [one], bias, dense_rows)
            for part, one, bias in zip(parts, stored, each, strict=True)
        ]
        return SeparateLinear([member for member in members if not isinstance(member, SeparateLinear)])
    bias = mx.concatenate(list(biases)) if biases is not None else None
    if isinstance(whole, Dense):
        return Linear(parts, whole.array, bias)
    return PackedLinear(parts, whole, bias, dense_rows)


def _by_part(parts: Sequence[Part], whole: Stored, bias: mx.array | None) -> Iterator[tuple[str, Stored]]:
    start = 0
    for part in parts:
        span = slice(start, start + part.width)
        yield f"{part.name}.weight", whole.rows(span)
        if bias is not None:
            yield f"{part.name}.bias", Dense(bias[span])
        start += part.width
