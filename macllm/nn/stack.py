"""Stacks of matrices as layers: the experts of a mixture, dense or packed, one or several side by side."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.linear import Part, packed_gather, packed_matmul
from macllm.nn.stored import Dense, Packed, Stored, concatenate
from macllm.quantization import MLX_MODES

# On CPU a gather multiplies row by row. A product of several rows costs OpenBLAS a copy of the matrix first.
_DENSE_ALONE = 4


class Stack(Module):
    """For each row of the input a matrix of its own: ``x @ weight[index].T + bias[index]``, weight (N, O, I)."""

    def __init__(
        self, parts: Sequence[Part], weight: Stored, bias: mx.array | None, dense_rows: int | None = None
    ) -> None:
        """``dense_rows`` as for :class:`macllm.nn.linear.PackedLinear`."""
        super().__init__()
        self.parts = tuple(parts)
        self.dense_rows = dense_rows
        self._packing = weight.quantization if isinstance(weight, Packed) else None
        self.weight = weight.weight if isinstance(weight, Packed) else weight.array
        if isinstance(weight, Packed):
            if weight.scales is not None:
                self.scales = weight.scales
            if weight.biases is not None:
                self.biases = weight.biases
        if bias is not None:
            self.bias = bias  # (N, O)
        if isinstance(weight, Packed):
            self.freeze()

    @property
    def stored(self) -> Stored:
        """The matrices."""
        if self._packing is None:
            return Dense(self.weight)
        return Packed(self.weight, self.get("scales"), self.get("biases"), self._packing)

    def gather(self, x: mx.array, index: mx.array, *, ordered: bool) -> mx.array:
        """Rows x (..., 1, I) through the matrices of ``index`` (...); ``ordered``: the index ascends.

        Returns (..., 1, O).
        """
        if self._packing is None:  # asked first: a step has no time to make what stands for a plain array
            weight = self["weight"].swapaxes(-1, -2)
            y = mx.gather_mm(x, weight, rhs_indices=index, sorted_indices=ordered)
        else:
            packed = Packed(self["weight"], self.get("scales"), self.get("biases"), self._packing)
            y = packed_gather(x, index, packed, ordered=ordered)
        return y + self.bias[index][..., None, :] if "bias" in self else y

    @property
    def alone_from(self) -> int:
        """The rows of one matrix from which :meth:`alone` is quicker than :meth:`gather` on CPU."""
        return _DENSE_ALONE if self._packing is None else self.dense_rows or _DENSE_ALONE

    def alone(self, x: mx.array, index: int) -> mx.array:
        """Rows x (L, I) through matrix ``index``, to (L, O)."""
        matrix = self.stored.rows(index)
        if isinstance(matrix, Packed) and (self.dense_rows is None or len(x) < self.dense_rows):
            y = packed_matmul(x, matrix)
        else:
            y = x @ (matrix.dequantize(x.dtype) if isinstance(matrix, Packed) else matrix.array).T
        return y + self.bias[index] if "bias" in self else y

    def each(self, x: mx.array, *, transposed: bool = True) -> mx.array:
        """All matrices at once: x (B, N, L, I) to (B, N, L, O), matrix n for n; back with ``transposed`` off."""
        stored = self.stored
        if isinstance(stored, Packed) and self._expands(stored, x.shape[-2]):
            stored = Dense(stored.dequantize(x.dtype))
        if isinstance(stored, Dense):
            return x @ (stored.array.swapaxes(-1, -2) if transposed else stored.array)
        q = stored.quantization
        return mx.quantized_matmul(
            x, stored.weight, stored.group_scales, stored.biases, transposed, q.group_size, q.bits, q.mode
        )

    def _expands(self, stored: Packed, rows: int) -> bool:
        many = self.dense_rows is not None and rows >= self.dense_rows
        return many or stored.quantization.mode not in MLX_MODES

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        start, whole = 0, self.stored
        for part in self.parts:
            end = start + part.width
            yield f"{part.name}.weight", whole.map(lambda a, span=slice(start, end): a[:, span])  # type: ignore[misc]
            if "bias" in self:
                yield f"{part.name}.bias", Dense(self.bias[:, start:end])
            start = end


class SeparateStack(Module):
    """Several stacks with one input whose storage differs; outputs side by side as if they were one."""

    def __init__(self, members: Sequence[Stack]) -> None:
        super().__init__()
        self.members = list(members)

    def gather(self, x: mx.array, index: mx.array, *, ordered: bool) -> mx.array:
        return mx.concatenate([member.gather(x, index, ordered=ordered) for member in self.members], axis=-1)

    @property
    def alone_from(self) -> int:
        return max(member.alone_from for member in self.members)

    def alone(self, x: mx.array, index: int) -> mx.array:
        return mx.concatenate([member.alone(x, index) for member in self.members], axis=-1)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        for member in self.members:
            yield from member.tensors()


AnyStack: TypeAlias = Stack | SeparateStack


def make_stack(
    parts: Sequence[Part], stored: Sequence[Stored], biases: Sequence[mx.array] | None, dense_rows: int | None
) -> AnyStack:
    """One layer of the ``parts``, side by side where their storage is the same."""
    try:
        whole = concatenate(stored, axis=1) if len(stored) > 1 else stored[0]
    except ValueError:
        each = biases if biases is not None else [None] * len(parts)
        return SeparateStack(
            [
                Stack([part], one, bias, dense_rows)
                for part, one, bias in zip(parts, stored, each, strict=True)
            ]
        )
    bias = mx.concatenate(list(biases), axis=1) if biases is not None else None
    return Stack(parts, whole, bias, dense_rows)
