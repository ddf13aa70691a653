"""What a set of weights on disk can be asked, whatever its format."""

from collections.abc import Iterable
from typing import Protocol

import mlx.core as mx

from macllm.nn.stored import Stored


class Checkpoint(Protocol):
    """Named tensors on disk, read one at a time. A quantized matrix is one tensor, ``x.weight``."""

    @property
    def label(self) -> str:
        """The file or folder, for messages."""

    @property
    def rounds_inputs(self) -> bool:
        """Whether what comes into a layer's matrices is rounded to 8 bits (BitNet)."""

    @property
    def keeps_blocks(self) -> bool:
        """Whether matrices are to stay as they lie in the file, for kernels that read them so (GGUF)."""

    def names(self) -> Iterable[str]:
        """Stored names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor or of the matrix it stands for; no data is read."""

    def nbytes(self, name: str) -> int:
        """Bytes on disk."""

    def placement(self, name: str) -> str:
        """How it is stored and what becomes of it, in words."""

    def read(self, name: str) -> Stored:
        """The tensor as stored, or repacked exactly. Raises CheckpointError where it cannot be read."""

    def read_dense(self, name: str, dtype: mx.Dtype) -> mx.array:
        """The tensor's values in ``dtype``."""
