"""The blocks of RWKV-7 as data (Peng et al. 2025, arXiv 2503.14456)."""

from collections.abc import Iterator
from dataclasses import dataclass

from macllm.spec.memory import CacheSpec, State
from macllm.spec.norm import Norm
from macllm.spec.tensor import TensorSpec, linear


@dataclass(frozen=True)
class LowRank:
    """Ranks of the small networks that decide on a token: how fast rows fade, how much of what was is replaced,
    how far values are the first layer's (None: in that layer), and what the output is gated with.
    """

    decay: int
    rate: int
    blend: int | None
    gate: int

    @property
    def each(self) -> dict[str, tuple[int, bool]]:
        """Ranks by name, and whether there is a bias."""
        blend = {"blend": (self.blend, True)} if self.blend is not None else {}
        return {"decay": (self.decay, True), "rate": (self.rate, True), **blend, "gate": (self.gate, False)}


@dataclass(frozen=True)
class TimeMix:
    """A matrix a head that maps keys to values; queries, keys, values and decisions mix a token and the one before."""

    dim: int
    head_dim: int
    ranks: LowRank
    norm: Norm  # of each head

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        for name in MIXED:
            yield TensorSpec(f"{prefix}.mix_{name}", (self.dim,), "vector")
        for name in ("receptance", "key", "value", "output"):
            yield from linear(prefix, name, (self.dim, self.dim), False)
        for name, (rank, bias) in self.ranks.each.items():
            yield from linear(prefix, f"{name}_down", (rank, self.dim), False)
            yield from linear(prefix, f"{name}_up", (self.dim, rank), bias)
        for name in ("key_scale", "rate_scale", "bonus"):
            yield TensorSpec(f"{prefix}.{name}", (self.dim,), "vector")
        yield from self.norm.tensors(f"{prefix}.norm", self.dim)

    @property
    def heads(self) -> int:
        return self.dim // self.head_dim

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        """The token before, and the matrices."""
        state = State(recent=0, sums=self.dim * self.head_dim, logged=5 * self.dim)
        return (State(recent=self.dim, sums=0, logged=self.dim), state)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        # in chunks of 32 tokens, a head's scores are two times 64 values a token, and what they become as much
        return 30 * self.dim + self.heads * 256


@dataclass(frozen=True)
class ChannelMix:
    """Feed-forward of a mix of a token and the one before: ``value(relu(key(mix)) ** 2)``."""

    dim: int
    hidden: int

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield TensorSpec(f"{prefix}.mix", (self.dim,), "vector")
        yield from linear(prefix, "key", (self.hidden, self.dim), False)
        yield from linear(prefix, "value", (self.dim, self.hidden), False)

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        """The token before."""
        return (State(recent=self.dim, sums=0, logged=self.dim),)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return 2 * self.hidden + 3 * self.dim


# what the projections and the small networks see a mix of, in the order of the mixes
MIXED = ("receptance", "decay", "key", "value", "rate", "gate")
