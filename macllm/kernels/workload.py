"""What a model asks of kernels: the shapes of its matrices and of its attention, to time kernels on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import mlx.core as mx

from macllm.spec import Attention, ModelSpec

MOST_WEIGHTS = 2**26  # of a matrix to time on: of a larger one only its first rows, which take as long each
SHORT_WEIGHTS = 2**24  # the same in the short form, which shares the memory with a model that is being read
ROWS = (1, 2, 4, 8)  # of the input of one product: decoding, and checks of drafts
TOKENS = (1024, 8192)  # already in the cache
BLOCK = 256  # inputs that every storage divides by


@dataclass(frozen=True)
class Heads:
    """Attention's sizes: heads of queries, heads of keys and values, width of a head."""

    queries: int
    keys: int
    width: int


@dataclass(frozen=True)
class Workload:
    """The distinct shapes of a model, the type it computes in, and how much comes at once."""

    dtype: mx.Dtype
    matrices: tuple[tuple[int, int], ...]  # (N, K): outputs and inputs
    heads: tuple[Heads, ...]
    dim: int  # of the states between layers
    rows: tuple[int, ...] = ROWS
    tokens: tuple[int, ...] = TOKENS

    def short(self) -> "Workload":
        """Its largest matrix, or a part of it, its most heads, and the fewest and most rows."""
        largest = sorted(self.matrices, key=lambda shape: shape[0] * shape[1])[-1:]
        return replace(
            self,
            matrices=tuple(_cut(largest, SHORT_WEIGHTS)),
            heads=tuple(sorted(self.heads, key=lambda heads: heads.queries * heads.width)[-1:]),
            rows=(min(self.rows), max(self.rows)),
            tokens=self.tokens[-1:],
        )

    def as_json(self) -> dict[str, Any]:
        """As JSON data."""
        shapes = {"matrices": self.matrices, "heads": [astuple(each) for each in self.heads], "dim": self.dim}
        return {
            "dtype": str(self.dtype).rpartition(".")[2],
            **shapes,
            "rows": self.rows,
            "tokens": self.tokens,
        }

    def rows_within(self, fewest: int, most: int) -> tuple[int, ...]:
        """Those of ``rows`` that a kernel is for."""
        return tuple(rows for rows in self.rows if fewest <= rows <= most)


def standard(dtype: mx.Dtype) -> Workload:
    """Llama 3.1 8B's, whose shapes many models have or come near."""
    return Workload(
        dtype, ((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)), (Heads(32, 8, 128),), 4096
    )


def of_spec(spec: ModelSpec, dtype: mx.Dtype) -> Workload:
    """A model's: of its matrices and stacks each shape once, of attention each combination of heads."""
    shapes = (
        tensor.shape[-2:] for tensor in spec.tensors() if tensor.kind in ("matrix", "stack", "embedding")
    )
    mixers = (mixer for layer in spec.layers for mixer in layer.mixers if isinstance(mixer, Attention))
    heads = dict.fromkeys(Heads(mixer.heads, mixer.kv_heads, mixer.head_dim) for mixer in mixers)
    return Workload(dtype, tuple(dict.fromkeys(_cut(shapes, MOST_WEIGHTS))), tuple(heads), spec.dim)


def from_json(raw: Any) -> Workload:
    """What :meth:`Workload.as_json` made."""
    return Workload(
        getattr(mx, raw["dtype"]),
        tuple((outputs, inputs) for outputs, inputs in raw["matrices"]),
        tuple(Heads(*each) for each in raw["heads"]),
        raw["dim"],
        tuple(raw["rows"]),
        tuple(raw["tokens"]),
    )


def _cut(shapes: Iterable[Sequence[int]], most: int) -> Iterator[tuple[int, int]]:
    for outputs, inputs in shapes:
        yield min(outputs, max(most // inputs, 1)), inputs
