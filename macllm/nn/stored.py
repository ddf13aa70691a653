"""A weight as it is stored and moved: a plain array, or a quantized matrix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import mlx.core as mx

from macllm.kernels import dispatch, nf4
from macllm.quantization import Quantization

DTYPES = {
    "float32": mx.float32,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
}  # what weights and models come in


@dataclass(frozen=True)
class Dense:
    """A plain tensor."""

    array: mx.array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def arrays(self) -> list[mx.array]:
        """What it is made of."""
        return [self.array]

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def map(self, change: Callable[[mx.array], mx.array]) -> "Dense":
        """The tensor with something done to its array that leaves the last axis alone."""
        return Dense(change(self.array))

    def rows(self, index: mx.array | slice | int) -> "Dense":
        """The tensor with its rows (first axis) picked or reordered."""
        return self.map(lambda array: array[index])


@dataclass(frozen=True)
class Packed:
    """A quantized matrix (O, I): packed words, a scale for each group of weights and, in affine mode, a bias.

    In mode ``nf4`` scales are codes as long as biases are there: of groups of scales, see :mod:`macllm.kernels.nf4`.
    """

    weight: mx.array  # uint32 (O, I * bits / 32)
    scales: mx.array  # (O, I / group_size)
    biases: mx.array | None  # (O, I / group_size), affine; (groups, 2), nf4
    quantization: Quantization

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix it stands for."""
        *rows, words = self.weight.shape
        return (*rows, words * 32 // self.quantization.bits)

    def arrays(self) -> list[mx.array]:
        """Weight, scales and, where there are any, biases."""
        return [self.weight, self.scales, *([self.biases] if self.biases is not None else [])]

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays())

    def map(self, change: Callable[[mx.array], mx.array]) -> "Packed":
        """The matrix with the same done to all its arrays, the last axis left alone: groups run along it, so exact."""
        if self._grouped:  # groups of scales run over rows
            return replace(self, scales=nf4.magnitudes(self.scales, self.biases), biases=None).map(change)
        biases = change(self.biases) if self.biases is not None else None
        return replace(self, weight=change(self.weight), scales=change(self.scales), biases=biases)

    def rows(self, index: mx.array | slice | int) -> "Packed":
        """The matrix with its rows (first axis) picked or reordered."""
        if self._grouped:
            return Packed(*nf4.rows(self.weight, self.scales, self.biases, index), self.quantization)
        return self.map(lambda array: array[index])

    def grouped(self) -> "Packed":
        """The matrix in mode ``nf4`` with groups of scales again, codes untouched, where its rows were torn apart."""
        if self._grouped:
            return self
        return Packed(self.weight, *nf4.quantize_magnitudes(self.scales), self.quantization)

    @property
    def _grouped(self) -> bool:
        return self.quantization.mode == "nf4" and self.biases is not None

    def dequantize(self, dtype: mx.Dtype) -> mx.array:
        """The matrix (O, I) it stands for. Affine scales are widened first, so float32 is exact."""
        q = self.quantization
        scales, biases = self.scales, self.biases
        if q.mode == "affine":
            scales = scales.astype(dtype)
            biases = biases.astype(dtype) if biases is not None else None
        return dispatch.expand(q, self.weight, scales, biases, dtype)


Stored: TypeAlias = Dense | Packed


def concatenate(parts: Sequence[Stored], axis: int = 0) -> Stored:
    """Tensors side by side along an axis but the last; all dense, or all packed the same way (else ValueError)."""
    rows_before_the_last = [part for part in parts[:-1] if isinstance(part, Packed) and part._grouped]
    if any(not nf4.ends_with_a_group(part.scales) for part in rows_before_the_last):
        raise ValueError("groups of scales would run from one matrix into the next")
    return _joined(parts, partial(mx.concatenate, axis=axis))


def stack(parts: Sequence[Stored]) -> Stored:
    """Matrices (O, I) as one stack (N, O, I); all dense, or all packed the same way (else ValueError)."""
    return _joined(parts, mx.stack)


def _joined(parts: Sequence[Stored], join: Callable[[list[mx.array]], mx.array]) -> Stored:
    if all(isinstance(part, Dense) for part in parts):
        return Dense(join([part.array for part in parts if isinstance(part, Dense)]))
    packed = [part for part in parts if isinstance(part, Packed)]
    ways = {(part.quantization, part.biases is None) for part in packed}
    if len(packed) != len(parts) or len(ways) != 1:
        raise ValueError("only matrices packed the same way can be joined")
    biases = [part.biases for part in packed if part.biases is not None]
    return Packed(
        join([part.weight for part in packed]),
        join([part.scales for part in packed]),
        join(biases) if len(biases) == len(packed) else None,
        packed[0].quantization,
    )
