"""Ternary weights as BitNet's authors and transformers keep them: four to a byte, or plain and rounded at load.

A matrix is one number times -1, 0 and 1. MLX's affine packing of two bits holds exactly that, so packed matrices
become such, and its kernels multiply them; where the width is no multiple of the group they become plain.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import TERNARY, Quantization, Ternary
from macllm.spec import ModelSpec
from macllm.weights.names import Naming
from macllm.weights.safetensors import Headers, SafetensorsCheckpoint

_IN_BYTE, _IN_WORD = 4, 16  # weights of two bits
_SMALLEST = 1e-5  # mean magnitude, as transformers bounds it


class TernaryCheckpoint(SafetensorsCheckpoint):
    """A folder whose matrices, but for embedding and head, are ternary."""

    rounds_inputs = True

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        ternary: Ternary,
        spec: ModelSpec,
        naming: Naming,
        headers: Headers,
    ) -> None:
        """Raises CheckpointError also for a model with other matrices than those of linear layers."""
        super().__init__(folder, config, headers)
        self._ternary = ternary
        tensors = list(spec.tensors())
        other = next((tensor for tensor in tensors if tensor.kind in ("stack", "router", "vector")), None)
        if other is not None:
            raise CheckpointError(
                f"{folder}: ternary weights are not supported for family {spec.family!r} ({other.name}); "
                "use the model's MLX, GGUF or 16-bit version"
            )
        self._matrices = {
            stored
            for tensor in tensors
            if tensor.kind == "matrix" and tensor.name != "head.weight"
            for stored in naming.stored(tensor.name)
        }

    def names(self) -> Iterable[str]:
        scales = {_scale(name) for name in self._matrices} if self._ternary.packed else set()
        return [name for name in super().names() if name not in scales]

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._matrices:
            return super().shape(name)
        rows, width = self._entry(name).shape
        return (rows * _IN_BYTE if self._is_packed(name) else rows, width)

    def nbytes(self, name: str) -> int:
        scale = self._entry(_scale(name)).nbytes if self._is_packed(name) else 0
        return self._entry(name).nbytes + scale

    def quantization(self, name: str) -> Quantization | None:
        """What :meth:`read` makes of it."""
        if name not in self._matrices:
            return super().quantization(name)
        return TERNARY if self.shape(name)[-1] % TERNARY.group_size == 0 else None

    def placement(self, name: str) -> str:
        return "ternary" if name in self._matrices else super().placement(name)

    def read(self, name: str) -> Stored:
        if name not in self._matrices:
            return super().read(name)
        if not self._ternary.packed:
            return _stored(*rounded_weights(self._array(name)))
        if not self._is_packed(name):
            entry = self._entry(name)
            raise CheckpointError(
                f"{entry.file.name}: {name} is stored as {entry.dtype} where config.json says packed ternary weights; "
                "take the config.json that belongs to these weights"
            )
        magnitude = self._array(_scale(name)).astype(mx.float32)
        return _stored(unpacked(self._array(name)), 1 / magnitude if self._ternary.inverted else magnitude)

    def _is_packed(self, name: str) -> bool:
        return self._ternary.packed and name in self._matrices and self._entry(name).dtype == "U8"


def unpacked(codes: mx.array) -> mx.array:
    """Bytes (O / 4, I), two bits for each quarter of the rows, to 0, 1 and 2 for -1, 0 and 1 (O, I), uint8."""
    quarters = [(codes >> (2 * index)) & 3 for index in range(_IN_BYTE)]
    return mx.concatenate(quarters, axis=0)


def rounded_weights(weight: mx.array) -> tuple[mx.array, mx.array]:
    """A plain matrix as codes of 0, 1 and 2 (O, I) and their magnitude (1,), the mean of all (arXiv 2402.17764)."""
    wide = weight.astype(mx.float32)
    scale = 1 / mx.maximum(mx.abs(wide).mean(), _SMALLEST)
    codes = mx.clip(mx.round(wide * scale), -1, 1) + 1
    return codes.astype(mx.uint8), (1 / scale).reshape(1)


def _stored(codes: mx.array, magnitude: mx.array) -> Stored:
    """The matrix in MLX's packing, ``magnitude * code - magnitude``, or plain, in float32."""
    rows, width = codes.shape
    if width % TERNARY.group_size:
        return Dense((codes.astype(mx.float32) - 1) * magnitude)
    shifts = mx.arange(0, 2 * _IN_WORD, 2, dtype=mx.uint32)
    words = (codes.reshape(rows, -1, _IN_WORD).astype(mx.uint32) << shifts).sum(axis=-1)
    scales = mx.broadcast_to(magnitude, (rows, width // TERNARY.group_size))
    return Packed(words.astype(mx.uint32), mx.contiguous(scales), mx.contiguous(-scales), TERNARY)


def _scale(name: str) -> str:
    return f"{name.removesuffix('.weight')}.weight_scale"
