"""A GGUF file as a checkpoint: its tensors by their own names, repacked exactly where MLX has the type."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.stored import Stored
from macllm.weights import gguf_types
from macllm.weights.gguf_file import GGUFFile, GGUFTensor


@dataclass(frozen=True)
class GGUFCheckpoint:
    """The tensors of one GGUF file (or of its parts). ``dtype`` is what scales and plain tensors come in."""

    file: GGUFFile
    dtype: mx.Dtype = mx.float16

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

    def placement(self, name: str) -> str:
        return gguf_types.placement(self._tensor(name).type_name, self.dtype, self.dtype)

    def read(self, name: str) -> Stored:
        return gguf_types.read(self._tensor(name), scale_dtype=self.dtype, dense_dtype=self.dtype)

    def read_dense(self, name: str, dtype: mx.Dtype) -> mx.array:
        return gguf_types.read_dense(self._tensor(name), dtype)

    def _tensor(self, name: str) -> GGUFTensor:
        if name not in self.file.tensors:
            raise CheckpointError(f"{self.label}: tensor {name!r} is missing; download the file again")
        return self.file.tensors[name]
