"""Builds a model's parameters from a checkpoint: checked by name and shape first, then read one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.linear import AnyLinear, Embedding, Linear, PackedLinear, Part, RoundedLinear, make_linear
from macllm.nn.stack import AnyStack, make_stack
from macllm.nn.stored import Dense, Stored
from macllm.spec import ModelSpec
from macllm.weights.checkpoint import Checkpoint
from macllm.weights.names import Naming, Reader
from macllm.weights.operations import Relation

# A packed matrix multiplies row by row on CPU (0.6 ns a weight and row); expanding it costs about 4 ns a weight.
CPU_DENSE_ROWS = 8


@dataclass(frozen=True)
class Placement:
    """How weights lie in memory: the compute dtype, and whether packed matrices stay packed.

    ``expand`` turns them into plain matrices, four to eight times the bytes and on CPU two to twenty times
    the speed. ``dense_rows`` is the prefill length from which a packed matrix is expanded for one product.
    """

    dtype: mx.Dtype
    expand: bool = False
    dense_rows: int | None = None


class CheckpointParameters:
    """Gives blocks their parameters out of a checkpoint (the ``Parameters`` protocol)."""

    def __init__(
        self,
        spec: ModelSpec,
        checkpoint: Checkpoint,
        naming: Naming,
        placement: Placement,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Raises CheckpointError where the tensors are not the spec's."""
        self._checkpoint = checkpoint
        self._placement = placement
        self._specs = {tensor.name: tensor for tensor in spec.tensors()}
        self._progress = progress
        self._read = 0
        check_tensors(spec, checkpoint, naming)
        self._matrices = Reader(naming, checkpoint.label, self._read_matrix)
        self._vectors = Reader(naming, checkpoint.label, self._read_vector)
        self._total = sum(checkpoint.nbytes(name) for each in naming.relations() for name in each.stored)

    def linear(self, prefix: str, *names: str, bias: bool = False) -> AnyLinear:
        paths = [f"{prefix}.{name}" if prefix else name for name in names]
        parts = [Part(path, self._specs[f"{path}.weight"].shape[0]) for path in paths]
        stored = [self._matrix(f"{path}.weight") for path in paths]
        biases = [self._vector(f"{path}.bias", self._placement.dtype) for path in paths] if bias else None
        plain = make_linear(parts, stored, biases, self._placement.dense_rows)
        rounds = self._checkpoint.rounds_inputs and prefix != ""  # embedding and head have none
        layer: AnyLinear = RoundedLinear(plain) if rounds else plain
        mx.eval(layer.parameters())  # one layer at a time: what was read is free before the next
        self._report()
        return layer

    def stack(self, prefix: str, *names: str, bias: bool = False) -> AnyStack:
        paths = [f"{prefix}.{name}" for name in names]
        parts = [Part(path, self._specs[f"{path}.weight"].shape[1]) for path in paths]
        stored = [self._matrix(f"{path}.weight") for path in paths]
        biases = [self._vector(f"{path}.bias", self._placement.dtype) for path in paths] if bias else None
        layer = make_stack(parts, stored, biases, self._placement.dense_rows)
        mx.eval(layer.parameters())
        self._report()
        return layer

    def embedding(self, name: str) -> Embedding:
        table = self.linear("", name)
        assert isinstance(table, Linear | PackedLinear)  # one matrix is never separate
        return Embedding(table, self._placement.dtype)

    def vector(self, name: str, *, wide: bool = False) -> mx.array:
        vector = self._vector(name, mx.float32 if wide else self._placement.dtype)
        mx.eval(vector)
        self._report()
        return vector

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._read, self._total)

    def _matrix(self, name: str) -> Stored:
        stored = self._matrices.read(name)
        if isinstance(stored, Dense):  # an operation may have widened it
            return Dense(stored.array.astype(self._placement.dtype))
        return stored

    def _vector(self, name: str, dtype: mx.Dtype) -> mx.array:
        stored = self._vectors.read(name)
        assert isinstance(stored, Dense)
        return stored.array.astype(dtype)

    def _read_vector(self, stored: str) -> Stored:
        self._read += self._checkpoint.nbytes(stored)
        return Dense(self._checkpoint.read_dense(stored, mx.float32))

    def _read_matrix(self, stored: str) -> Stored:
        self._read += self._checkpoint.nbytes(stored)
        dtype = self._placement.dtype
        if self._placement.expand:
            return Dense(self._checkpoint.read_dense(stored, dtype))
        tensor = self._checkpoint.read(stored)
        if isinstance(tensor, Dense):
            return Dense(tensor.array.astype(dtype))
        if tensor.quantization.mode != "affine" or tensor.biases is None:
            return tensor
        # the kernels want scales of the activations' type
        return replace(tensor, scales=tensor.group_scales.astype(dtype), biases=tensor.biases.astype(dtype))


def check_tensors(spec: ModelSpec, checkpoint: Checkpoint, naming: Naming) -> None:
    """Raises CheckpointError for a tensor that is missing, unexpected or of another shape, by name."""
    present = set(checkpoint.names())
    relations = list(naming.relations())
    missing = [name for relation in relations for name in relation.stored if name not in present]
    if missing:
        raise CheckpointError(
            f"{checkpoint.label}: {_listed(missing)} missing, which family {spec.family!r} needs by its config; "
            "download the model again, or take the config that belongs to these weights"
        )
    unexpected = naming.unexpected(sorted(present))
    if unexpected:
        raise CheckpointError(
            f"{checkpoint.label}: {_listed(unexpected)} not known to family {spec.family!r}; "
            "the config does not belong to these weights, or macllm cannot run this variant"
        )
    for relation in relations:
        _check_shapes(relation, checkpoint)


def _check_shapes(relation: Relation, checkpoint: Checkpoint) -> None:
    for stored, expected in zip(relation.stored, relation.stored_shapes(), strict=True):
        found = checkpoint.shape(stored)
        if found != expected:
            raise CheckpointError(
                f"{checkpoint.label}: {stored} has shape {found} where the config asks for {expected}; "
                "take the config that belongs to these weights"
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    if len(names) == 1:
        return f"tensor {shown} is"
    return f"{len(names)} tensors ({shown}{', ...' if len(names) > 3 else ''}) are"
