"""One tensor of a model: its name, its shape, and what it is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

# A stack is several matrices of one shape (N, O, I): experts, or heads of a latent attention. A vector is any small
# parameter that is computed with as it is: convolution kernels, decays, sinks.
TensorKind: TypeAlias = Literal["matrix", "embedding", "router", "stack", "norm", "bias", "vector"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor under its canonical name. Matrices of every kind can be quantized.

    ``precise``: it decides what 16 bits would decide otherwise (who is chosen, how long a state lasts), and keeps the
    type it has whatever type is asked for.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind
    precise: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def quantizable(self) -> bool:
        return self.kind in ("matrix", "embedding", "router", "stack")

    @property
    def row_axis(self) -> int:
        """The axis of the outputs: of a matrix the last but one, of a vector the last."""
        return -2 if self.quantizable else -1


def linear(prefix: str, name: str, shape: tuple[int, ...], bias: bool) -> Iterator[TensorSpec]:
    """A matrix (O, I), or a stack (N, O, I), and the bias that goes with it."""
    path = f"{prefix}.{name}" if prefix else name
    yield TensorSpec(f"{path}.weight", shape, "matrix" if len(shape) == 2 else "stack")
    if bias:
        yield TensorSpec(f"{path}.bias", shape[:-1], "bias")


def convolution(prefix: str, name: str, channels: int, width: int, bias: bool) -> Iterator[TensorSpec]:
    """A kernel a channel over ``width`` positions (C, K), and the bias that goes with it."""
    yield TensorSpec(f"{prefix}.{name}.weight", (channels, width), "vector")
    if bias:
        yield TensorSpec(f"{prefix}.{name}.bias", (channels,), "bias")
