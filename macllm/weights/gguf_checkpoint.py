"""A GGUF file as a checkpoint: its tensors by their own names, as they lie there or repacked where MLX has the type."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.stored import Stored
from macllm.quantization import Mode, Quantization
from macllm.weights import gguf_types
from macllm.weights.gguf_file import GGUFFile, GGUFTensor


@dataclass(frozen=True)
class GGUFCheckpoint:
    """The tensors of one GGUF file (or of its parts). ``dtype`` is what scales and plain tensors come in.

    Matrices of the modes ``kept`` stay as they lie in the file.
    """

    file: GGUFFile
    dtype: mx.Dtype = mx.float16
    kept: Collection[Mode] = ()

    rounds_inputs: ClassVar[bool] = False

    @property
    def label(self) -> str:
        return str(self.file.path)

    def names(self) -> Iterable[str]:
        return self.file.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensor(name).shape

    def nbytes(self, name: str) -> int:
        return self._tensor(name).nbytes

    @property
    def keeps_blocks(self) -> bool:
        return any(self._kept(tensor) is not None for tensor in self.file.tensors.values())

    def placement(self, name: str) -> str:
        tensor = self._tensor(name)
        if self._kept(tensor) is not None:
            return gguf_types.KEPT
        return gguf_types.placement(tensor.type_name, self.dtype, self.dtype)

    def read(self, name: str) -> Stored:
        tensor = self._tensor(name)
        mode = self._kept(tensor)
        if mode is not None:
            return gguf_types.read_blocks(tensor, mode)
        return gguf_types.read(tensor, scale_dtype=self.dtype, dense_dtype=self.dtype)

    def read_dense(self, name: str, dtype: mx.Dtype) -> mx.array:
        return gguf_types.read_dense(self._tensor(name), dtype)

    def _kept(self, tensor: GGUFTensor) -> Quantization | None:
        """The mode in which a matrix stays as it is; None where it does not."""
        mode = gguf_types.blocks(tensor.type_name) if len(tensor.shape) > 1 else None
        return mode if mode is not None and mode.mode in self.kept else None

    def _tensor(self, name: str) -> GGUFTensor:
        if name not in self.file.tensors:
            raise CheckpointError(f"{self.label}: tensor {name!r} is missing; download the file again")
        return self.file.tensors[name]
