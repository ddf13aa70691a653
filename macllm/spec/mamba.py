"""Selective state spaces as data: Mamba 1 and 2, and mixers side by side."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from macllm.spec.memory import CacheSpec, State
from macllm.spec.norm import Norm
from macllm.spec.tensor import TensorSpec, convolution, linear

if TYPE_CHECKING:
    from macllm.spec.model import Mixer


@dataclass(frozen=True)
class Mamba:
    """A selective state space (Gu and Dao 2023, arXiv 2312.00752): each channel has a state of its own.

    ``norm``: what the time step, B and C go through (Jamba, Falcon Mamba).
    """

    dim: int
    inner: int  # channels
    state: int  # values a channel
    rank: int  # through which the time step is computed
    kernel: int  # tokens that the convolution sees, the newest included
    bias: bool = False  # on what leads in and out
    conv_bias: bool = True
    norm: Norm | None = None

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from linear(prefix, "in", (2 * self.inner, self.dim), self.bias)
        yield from convolution(prefix, "conv", self.inner, self.kernel, self.conv_bias)
        yield from linear(prefix, "x", (sum(self.selected.values()), self.inner), False)
        if self.norm is not None:
            for name, width in self.selected.items():
                yield from self.norm.tensors(f"{prefix}.{name}_norm", width)
        yield from linear(prefix, "dt", (self.inner, self.rank), False)
        yield TensorSpec(f"{prefix}.dt_bias", (self.inner,), "vector")
        yield TensorSpec(f"{prefix}.A_log", (self.inner, self.state), "vector")
        yield TensorSpec(f"{prefix}.D", (self.inner,), "vector")
        yield from linear(prefix, "out", (self.dim, self.inner), self.bias)

    @property
    def selected(self) -> dict[str, int]:
        """What a token selects, and how many values each takes, in the order they are computed in."""
        return {"dt": self.rank, "b": self.state, "c": self.state}

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        return (State((self.kernel - 1) * self.inner, self.inner * self.state, self.inner),)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return self.inner * (6 + self.state // 4)  # states of one token in sixteen are there at a time


@dataclass(frozen=True)
class Mamba2:
    """State space duality (Dao and Gu 2024, arXiv 2405.21060): heads with one decay each, B and C shared in groups.

    ``norm``: on the output, each group for itself, with the gate before it or, ``norm_first``, after it. None: the
    gate alone.
    """

    dim: int
    heads: int
    head_dim: int
    groups: int  # of heads that share B and C
    state: int  # values for each of a head's
    kernel: int  # tokens that the convolution sees, the newest included
    norm: Norm | None
    norm_first: bool = False
    bias: bool = False  # on what leads in
    out_bias: bool = False
    conv_bias: bool = True
    shortest_step: float = 0.0
    longest_step: float = math.inf

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from linear(prefix, "in", (sum(self.projected), self.dim), self.bias)
        yield from convolution(prefix, "conv", self.convolved, self.kernel, self.conv_bias)
        for name in ("dt_bias", "A_log", "D"):
            yield TensorSpec(f"{prefix}.{name}", (self.heads,), "vector")
        if self.norm is not None:
            yield from self.norm.tensors(f"{prefix}.norm", self.inner)
        yield from linear(prefix, "out", (self.dim, self.inner), self.out_bias)

    @property
    def inner(self) -> int:
        """Channels."""
        return self.heads * self.head_dim

    @property
    def convolved(self) -> int:
        """Values a token that go through the convolution: x, B and C."""
        return self.inner + 2 * self.groups * self.state

    @property
    def projected(self) -> tuple[int, ...]:
        """Widths of what is projected from a token: gate, x, B, C and time steps."""
        shared = self.groups * self.state
        return (self.inner, self.inner, shared, shared, self.heads)

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        recent = (self.kernel - 1) * self.convolved
        return (State(recent, self.inner * self.state, self.convolved + self.heads),)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return 3 * sum(self.projected) + self.heads * 64 * 2  # decays and scores within a chunk


@dataclass(frozen=True)
class ParallelMixers:
    """Several mixers of one input, whose outputs add up (Falcon-H1). ``mixers`` by name."""

    mixers: tuple[tuple[str, "Mixer"], ...]

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Their tensors under their canonical names."""
        for name, mixer in self.mixers:
            yield from mixer.tensors(f"{prefix}.{name}")

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        return tuple(cache for _, mixer in self.mixers for cache in mixer.caches)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return sum(mixer.working_values for _, mixer in self.mixers)
