"""What lies between stored tensors and canonical ones, done and undone: the operations of ``macllm.spec.names``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.stored import Dense, Packed, Stored, concatenate, stack
from macllm.spec.names import (
    Absent,
    Apart,
    Decay,
    Each,
    HeadPairs,
    HeadTurns,
    Joined,
    LatentHeads,
    Offset,
    Operation,
    Reshaped,
    Rows,
    Scaled,
    Squeezed,
    Stack,
    Transposed,
)
from macllm.spec.tensor import TensorSpec

_GROUP = 32  # weights: of GGUF's packed matrices


@dataclass(frozen=True)
class Relation:
    """Stored tensors and the canonical ones they hold: names of both, and the operations from the first on."""

    stored: tuple[str, ...]
    canonical: tuple[TensorSpec, ...]
    operations: tuple[Operation, ...] = ()

    @property
    def moves_whole_groups(self) -> bool:
        """Whether packed matrices pass with their codes: nothing is done across the groups of their inputs."""
        across = (Transposed, LatentHeads, Offset, Scaled)
        return not any(isinstance(each, across) or _tears_groups(each) for each in self.operations)

    def load(self, stored: Sequence[Stored]) -> list[Stored]:
        """The canonical tensors."""
        tensors = list(stored)
        for operation in self.operations:
            tensors = self._load(operation, tensors)
        return tensors

    def store(self, canonical: Sequence[Stored]) -> list[Stored]:
        """The stored tensors: the inverse."""
        tensors = list(canonical)
        for operation in reversed(self.operations):
            tensors = self._store(operation, tensors)
        return tensors

    def stored_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the stored tensors. Nothing is computed."""
        zeros: list[Stored] = [Dense(mx.zeros(tensor.shape)) for tensor in self.canonical]
        return [tensor.shape for tensor in self.store(zeros)]

    def _load(self, operation: Operation, tensors: list[Stored]) -> list[Stored]:
        match operation:
            case Rows(groups):
                return self._split(tensors[0], groups)
            case Stack():
                return [stack(tensors)]
            case Joined():
                return [concatenate(tensors)]
            case LatentHeads(heads, nope_dim):
                whole = tensors[0].map(lambda a: a.reshape(heads, -1, a.shape[-1]))
                keys, values = (whole.map(lambda a: a[:, :nope_dim]), whole.map(lambda a: a[:, nope_dim:]))
                return [_transposed(keys), values]
            case Absent():
                return [Dense(mx.zeros(tensor.shape)) for tensor in self.canonical]
            case Apart(between):
                whole = tensors[0].map(lambda a: a.reshape(a.shape[0], *a.shape[1 + len(between) :]))
                return [whole.rows(index) for index in range(len(self.canonical))]
            case Each(own):
                pairs = zip(self._apart(own), tensors, strict=True)
                return [relation.load([tensor])[0] for relation, tensor in pairs]
        return [self._each(operation, tensor, stored=True) for tensor in tensors]

    def _store(self, operation: Operation, tensors: list[Stored]) -> list[Stored]:
        match operation:
            case Rows(groups):
                return [self._join(tensors, groups)]
            case Stack():
                return [tensors[0].rows(index) for index in range(self.canonical[0].shape[0])]
            case Joined(_, rows):
                ends = list(accumulate(rows))
                return [
                    tensors[0].rows(slice(end - count, end)) for count, end in zip(rows, ends, strict=True)
                ]
            case LatentHeads():
                keys, values = _transposed(tensors[0]), Dense(_values(tensors[1]))
                return [concatenate([keys, values], axis=1).map(lambda a: a.flatten(0, 1))]
            case Absent():
                return []
            case Apart(between):
                return [stack(tensors).map(lambda a: a.reshape(a.shape[0], *between, *a.shape[1:]))]
            case Each(own):
                pairs = zip(self._apart(own), tensors, strict=True)
                return [relation.store([tensor])[0] for relation, tensor in pairs]
        return [self._each(operation, tensor, stored=False) for tensor in tensors]

    def _each(self, operation: Operation, tensor: Stored, *, stored: bool) -> Stored:
        """One tensor through an operation that concerns each alone; ``stored`` says which side it is on."""
        match operation:
            case Offset(amount):
                return Dense(_plain(tensor).astype(mx.float32) + (amount if stored else -amount))
            case Transposed():
                return tensor if self._vectors else _transposed(tensor)
            case HeadPairs(width):
                return tensor.rows(_head_order(tensor.shape[0], width, stored=stored))
            case HeadTurns(columns=True):
                return _turned_columns(tensor, operation, stored=stored)
            case HeadTurns(groups, width, first):
                order = _turns((tensor.shape[0] - first) // width, groups, stored=stored)
                rows = (order[:, None] * width + mx.arange(width)).reshape(-1) + first
                return tensor.rows(mx.concatenate([mx.arange(first), rows]))
            case Decay():
                values = _values(tensor).astype(mx.float32)
                return Dense(mx.log(-values) if stored else -mx.exp(values))
            case Reshaped(shape):
                return Dense(_values(tensor).reshape(self.canonical[0].shape if stored else shape))
            case Scaled(factors, rows):
                factor = _by_row(factors, rows, self._axis)
                values = _values(tensor).astype(mx.float32)
                return Dense(values * factor if stored else values / factor)
            case Squeezed(axis):
                if self.canonical[0].kind == "bias":
                    return tensor
                return tensor.map(lambda a: a.squeeze(axis) if stored else mx.expand_dims(a, axis))
        raise AssertionError(operation)

    def _apart(self, operations: Sequence[tuple[Operation, ...]]) -> list["Relation"]:
        """The canonical tensors one by one, each with operations of its own."""
        pairs = zip(self.canonical, operations, strict=True)
        return [Relation(self.stored, (tensor,), own) for tensor, own in pairs]

    @property
    def _vectors(self) -> bool:
        return not self.canonical[0].quantizable

    @property
    def _axis(self) -> int:
        return self.canonical[0].row_axis

    @property
    def _rows(self) -> list[int]:
        return [tensor.shape[tensor.row_axis] for tensor in self.canonical]

    def _split(self, whole: Stored, groups: int) -> list[Stored]:
        """The rows of each canonical tensor, gathered from the groups."""
        widths = [rows // groups for rows in self._rows]

        def part(first: int, width: int) -> Callable[[mx.array], mx.array]:
            def taken(array: mx.array) -> mx.array:
                parts = array.reshape(*_grouped(array, self._axis, groups))
                span = slice(first, first + width)
                piece = parts[..., span, :] if self._axis == -2 else parts[..., span]
                return piece.reshape(*_merged(piece, self._axis))

            return taken

        starts = [sum(widths[:index]) for index in range(len(widths))]
        return [whole.map(part(first, width)) for first, width in zip(starts, widths, strict=True)]

    def _join(self, parts: Sequence[Stored], groups: int) -> Stored:
        axis = self._axis
        grouped = [part.map(lambda a: a.reshape(*_grouped(a, axis, groups))) for part in parts]
        return concatenate(grouped, axis).map(lambda a: a.reshape(*_merged(a, axis)))


def _grouped(array: mx.array, axis: int, groups: int) -> tuple[int, ...]:
    """The shape with the axis of rows (counted from the end) cut into groups."""
    shape = array.shape
    at = len(shape) + axis
    return (*shape[:at], groups, shape[at] // groups, *shape[at + 1 :])


def _merged(array: mx.array, axis: int) -> tuple[int, ...]:
    """The shape with the groups before the axis of rows undone."""
    shape = array.shape
    at = len(shape) + axis
    return (*shape[: at - 1], shape[at - 1] * shape[at], *shape[at + 1 :])


def _by_row(factors: Sequence[float], rows: Sequence[int], axis: int) -> mx.array:
    """The factor of each row, beside tensors whose rows lie along ``axis`` (from the end)."""
    if not rows:
        return mx.array(factors[0])
    parts = [mx.full(count, factor) for factor, count in zip(factors, rows, strict=True)]
    return mx.concatenate(parts).reshape(-1, *(1,) * (-1 - axis))


def _head_order(rows: int, width: int, *, stored: bool) -> mx.array:
    pairs = (width // 2, 2) if stored else (2, width // 2)
    return mx.arange(rows).reshape(-1, *pairs).swapaxes(1, 2).reshape(-1)


def _turns(heads: int, groups: int, *, stored: bool) -> mx.array:
    """Where each head is taken from."""
    pairs = (heads // groups, groups) if stored else (groups, heads // groups)
    return mx.arange(heads).reshape(*pairs).swapaxes(0, 1).reshape(-1)


def _tears_groups(operation: Operation) -> bool:
    """Whether heads along the inputs are not made of whole groups of any size that files have."""
    return isinstance(operation, HeadTurns) and operation.columns and operation.width % _GROUP != 0


def _turned_columns(tensor: Stored, turns: HeadTurns, *, stored: bool) -> Stored:
    """Of a packed matrix the values where a head is not made of whole groups of weights."""
    if isinstance(tensor, Packed):
        q = tensor.quantization
        if turns.width % q.group_size or turns.width * q.bits % 32:
            tensor = Dense(_values(tensor))
    heads = tensor.shape[-1] // turns.width
    order = _turns(heads, turns.groups, stored=stored)
    return tensor.map(lambda a: a.reshape(*a.shape[:-1], heads, -1)[..., order, :].reshape(a.shape))


def _transposed(tensor: Stored) -> Stored:
    """Of a packed matrix the values: its groups run along the other axis."""
    return Dense(_values(tensor).swapaxes(-1, -2))


def _values(tensor: Stored) -> mx.array:
    return tensor.dequantize(mx.float32) if isinstance(tensor, Packed) else tensor.array


def _plain(tensor: Stored) -> mx.array:
    if isinstance(tensor, Dense):
        return tensor.array
    raise CheckpointError(
        "a norm's weight is stored quantized; convert the model again with norms in 16 bits"
    )
