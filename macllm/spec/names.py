"""How a checkpoint names and lays out a model's tensors, as data: one entry a module, every operation invertible.

A key is a canonical module or tensor with ``{i}`` for the layer: ``layers.{i}.mixer.q``. An :class:`Entry` says
under which names it is stored (``{e}``: the expert) and what was done to it; several canonical modules may be
parts of one stored tensor, and several stored tensors one canonical one. Weights come in, and conversions, adapters
and exports go out, by the same table (``macllm.weights.names``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

# A checkpoint as its authors published it, or as MLX's tools keep it. Most tensors are the same in both.
Form: TypeAlias = Literal["hub", "mlx"]


@dataclass(frozen=True)
class Offset:
    """Stored less ``amount`` (Gemma's norms: ``weight - 1``)."""

    amount: float


@dataclass(frozen=True)
class Rows:
    """The canonical modules are the rows of one stored tensor, one after the other.

    With ``groups`` each module's rows are cut into so many parts, and the stored tensor holds the first parts of
    all, the second parts of all, ...: q, k and v by head, gate and up in turns.
    """

    groups: int = 1


@dataclass(frozen=True)
class Stack:
    """The canonical stack (N, O, I) is N stored matrices, ``{e}`` from 0."""


@dataclass(frozen=True)
class Joined:
    """The first axis of the canonical tensor runs over several stored ones, so many rows of each; ``{e}``: which."""

    parts: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Transposed:
    """Stored as (I, O); biases are not concerned."""


@dataclass(frozen=True)
class LatentHeads:
    """One stored matrix (H (n + v), r) holds, head by head, the keys' rows and the values' rows of latent attention.

    Canonical are (H, r, n), transposed, and (H, v, r).
    """

    heads: int
    nope_dim: int  # n


@dataclass(frozen=True)
class HeadPairs:
    """Rows of each head of ``width`` stored in pairs (0, d/2, 1, d/2 + 1, ...), for a rotation of neighbours."""

    width: int


@dataclass(frozen=True)
class Squeezed:
    """The canonical tensor lacks an axis of length one that the stored one has at ``axis``; biases stay as they are."""

    axis: int


@dataclass(frozen=True)
class Reshaped:
    """Stored in another shape, its values in the same order."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Scaled:
    """Stored without factors that the model has: one of all rows, or of so many ``rows`` after each other one each."""

    factors: tuple[float, ...]
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class HeadTurns:
    """Heads in ``groups``, ``width`` rows each, stored as the first of every group, the second of every, ...

    Only rows from ``first`` on. ``columns``: along the other axis.
    """

    groups: int
    width: int
    first: int = 0
    columns: bool = False


@dataclass(frozen=True)
class Apart:
    """The canonical tensors, all of one shape, are one stored stack; ``between``: further axes after its first."""

    between: tuple[int, ...] = ()


@dataclass(frozen=True)
class Decay:
    """The canonical tensor is the logarithm of a decay, the stored one the decay below 0: ``-exp(A_log)``."""


@dataclass(frozen=True)
class Absent:
    """Stored nowhere: zeros."""


@dataclass(frozen=True)
class Each:
    """What was done to each of several tensors alone: the operations of the first, of the second, ..."""

    operations: "tuple[tuple[Operation, ...], ...]"


Operation: TypeAlias = (
    Offset
    | Rows
    | Stack
    | Joined
    | Transposed
    | LatentHeads
    | HeadPairs
    | Squeezed
    | Reshaped
    | Scaled
    | HeadTurns
    | Apart
    | Decay
    | Absent
    | Each
)


@dataclass(frozen=True)
class Entry:
    """Where the modules of some keys are stored, and what leads from there to them, in this order.

    ``form`` says whose checkpoints are like this; None: all. A stored name without a kind (``.weight``) of its
    own gets the canonical tensor's.
    """

    stored: str
    operations: tuple[Operation, ...] = ()
    form: Form | None = None
    keys: tuple[str, ...] = ()  # all that the stored tensor holds, in order; filled in by `Names`


@dataclass(frozen=True)
class Names:
    """The entries of a family: by key the ways in which its module may be stored, the first that is there counts."""

    table: tuple[tuple[str, tuple[Entry, ...]], ...] = ()
    ignored: tuple[str, ...] = field(default=())  # stored tensors that hold nothing the model needs (regexes)
    idle: tuple[str, ...] = ()  # of those the ones that MLX's tools ask for all the same

    def alternatives(self) -> Mapping[str, tuple[Entry, ...]]:
        """The table by key."""
        return dict(self.table)
