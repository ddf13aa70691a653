"""Stacks of matrices as layers: the experts of a mixture, dense or packed, one or several side by side."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.linear import Part
from macllm.nn.stored import Dense, Packed, Stored, concatenate


class Stack(Module):
    """For each row of the input a matrix of its own: ``x @ weight[index].T + bias[index]``, weight (N, O, I)."""

    def __init__(self, parts: Sequence[Part], weight: Stored, bias: mx.array | None) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self._packing = weight.quantization if isinstance(weight, Packed) else None
        self.weight = weight.weight if isinstance(weight, Packed) else weight.array
        if isinstance(weight, Packed):
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
        return Packed(self.weight, self.scales, self.get("biases"), self._packing)

    def gather(self, x: mx.array, index: mx.array, *, ordered: bool) -> mx.array:
        """Rows x (..., 1, I) through the matrices of ``index`` (...); ``ordered``: the index ascends.

        Returns (..., 1, O).
        """
        q = self._packing
        if q is None:
            y = mx.gather_mm(x, self.weight.swapaxes(-1, -2), rhs_indices=index, sorted_indices=ordered)
        else:
            y = mx.gather_qmm(
                x, self.weight, self.scales, self.get("biases"), None, index, True, q.group_size, q.bits, q.mode,
                sorted_indices=ordered,
            )  # fmt: skip
        return y + self.bias[index][..., None, :] if "bias" in self else y

    def each(self, x: mx.array, *, transposed: bool = True) -> mx.array:
        """All matrices at once: x (B, N, L, I) to (B, N, L, O), matrix n for n; back with ``transposed`` off."""
        q = self._packing
        if q is None:
            return x @ (self.weight.swapaxes(-1, -2) if transposed else self.weight)
        return mx.quantized_matmul(
            x, self.weight, self.scales, self.get("biases"), transposed, q.group_size, q.bits, q.mode
        )

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

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        for member in self.members:
            yield from member.tensors()


AnyStack: TypeAlias = Stack | SeparateStack


def make_stack(
    parts: Sequence[Part], stored: Sequence[Stored], biases: Sequence[mx.array] | None
) -> AnyStack:
    """One layer of the ``parts``, side by side where their storage is the same."""
    try:
        whole = concatenate(stored, axis=1) if len(stored) > 1 else stored[0]
    except ValueError:
        each = biases if biases is not None else [None] * len(parts)
        return SeparateStack(
            [Stack([part], one, bias) for part, one, bias in zip(parts, stored, each, strict=True)]
        )
    return Stack(parts, whole, mx.concatenate(list(biases), axis=1) if biases is not None else None)
