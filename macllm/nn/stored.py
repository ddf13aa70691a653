"""A weight as it is stored and moved: a plain array, or a quantized matrix in one of MLX's own layouts."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import mlx.core as mx

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

    def rows(self, index: mx.array | slice) -> "Dense":
        """The tensor with its rows (first axis) picked or reordered."""
        return Dense(self.array[index])


@dataclass(frozen=True)
class Packed:
    """A quantized matrix (O, I): MLX's packed words, scales and, in affine mode, biases."""

    weight: mx.array  # uint32 (O, I * bits / 32)
    scales: mx.array  # (O, I / group_size)
    biases: mx.array | None  # (O, I / group_size), affine only
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

    def rows(self, index: mx.array | slice) -> "Packed":
        """The matrix with its rows (first axis) picked or reordered: groups run along the input, so exact."""
        biases = self.biases[index] if self.biases is not None else None
        return replace(self, weight=self.weight[index], scales=self.scales[index], biases=biases)

    def dequantize(self, dtype: mx.Dtype) -> mx.array:
        """The matrix (O, I) it stands for. Affine scales are widened first, so float32 is exact."""
        q = self.quantization
        scales, biases = self.scales, self.biases
        if q.mode == "affine":
            scales = scales.astype(dtype)
            biases = biases.astype(dtype) if biases is not None else None
        return mx.dequantize(self.weight, scales, biases, q.group_size, q.bits, q.mode, dtype=dtype)


Stored: TypeAlias = Dense | Packed


def concatenate(parts: list[Stored]) -> Stored:
    """Matrices stacked along their rows; all dense, or all packed the same way (else ValueError)."""
    if all(isinstance(part, Dense) for part in parts):
        return Dense(mx.concatenate([part.array for part in parts if isinstance(part, Dense)]))
    packed = [part for part in parts if isinstance(part, Packed)]
    if len(packed) != len(parts) or len({part.quantization for part in packed}) != 1:
        raise ValueError("only matrices packed the same way can be stacked")
    biases = [part.biases for part in packed if part.biases is not None]
    return Packed(
        mx.concatenate([part.weight for part in packed]),
        mx.concatenate([part.scales for part in packed]),
        mx.concatenate(biases) if len(biases) == len(packed) else None,
        packed[0].quantization,
    )
