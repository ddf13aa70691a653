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
    A GGUF's blocks have all in one, byte for byte as in the file.
    """

    weight: mx.array  # uint32 (O, I * bits / 32); of blocks uint8 (O, row bytes)
    scales: mx.array | None  # (O, I / group_size); None for blocks
    biases: mx.array | None  # (O, I / group_size), affine; (groups, 2), nf4
    quantization: Quantization

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix it stands for."""
        *rows, words = self.weight.shape
        block = self.quantization.block
        if block is not None:
            return (*rows, words // block.nbytes * block.weights)
        return (*rows, words * 32 // self.quantization.bits)

    @property
    def group_scales(self) -> mx.array:
        """The scales, of any mode but blocks."""
        assert self.scales is not None
        return self.scales

    def arrays(self) -> list[mx.array]:
        """Weight and, where there are any, scales and biases."""
        return [array for array in (self.weight, self.scales, self.biases) if array is not None]

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays())

    def map(self, change: Callable[[mx.array], mx.array]) -> "Packed":
        """The matrix with the same done to all its arrays, the last axis left alone: groups run along it, so exact."""
        if self._grouped:  # groups of scales run over rows
            return replace(self, scales=nf4.magnitudes(self.group_scales, self.biases), biases=None).map(
                change
            )
        scales, biases = (None if array is None else change(array) for array in (self.scales, self.biases))
        return replace(self, weight=change(self.weight), scales=scales, biases=biases)

    def rows(self, index: mx.array | slice | int) -> "Packed":
        """The matrix with its rows (first axis) picked or reordered."""
        if self._grouped:
            return Packed(*nf4.rows(self.weight, self.group_scales, self.biases, index), self.quantization)
        return self.map(lambda array: array[index])

    def grouped(self) -> "Packed":
        """The matrix in mode ``nf4`` with groups of scales again, codes untouched, where its rows were torn apart."""
        if self._grouped:
            return self
        return Packed(self.weight, *nf4.quantize_magnitudes(self.group_scales), self.quantization)

    @property
    def _grouped(self) -> bool:
        return self.quantization.mode == "nf4" and self.biases is not None

    def dequantize(self, dtype: mx.Dtype) -> mx.array:
        """The matrix (O, I) it stands for. Affine scales are widened first, so float32 is exact."""
        q = self.quantization
        scales, biases = self.scales, self.biases
        if q.mode == "affine":
            scales, biases = (None if array is None else array.astype(dtype) for array in (scales, biases))
        return dispatch.expand(q, self.weight, scales, biases, dtype)


Stored: TypeAlias = Dense | Packed


def concatenate(parts: Sequence[Stored], axis: int = 0) -> Stored:
    """Tensors side by side along an axis but the last; all dense, or all packed the same way (else ValueError)."""
    rows_before_the_last = [part for part in parts[:-1] if isinstance(part, Packed) and part._grouped]
    if any(not nf4.ends_with_a_group(part.group_scales) for part in rows_before_the_last):
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
    scales = [part.scales for part in packed if part.scales is not None]
    biases = [part.biases for part in packed if part.biases is not None]
    return Packed(
        join([part.weight for part in packed]),
        join(scales) if scales else None,
        join(biases) if biases else None,
        packed[0].quantization,
    )
