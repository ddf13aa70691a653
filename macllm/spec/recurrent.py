"""Mixers that carry a state of fixed size from token to token, as data.

Their tensors have names of their own, since layers of attention stand beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from macllm.spec.memory import CacheSpec, State
from macllm.spec.norm import Norm
from macllm.spec.tensor import TensorSpec, convolution, linear


@dataclass(frozen=True)
class ShortConv:
    """A convolution over the last few tokens between two gates (LFM2): ``output(c * conv(b * x))``.

    b, c and x are projections of the input, one matrix.
    """

    dim: int
    width: int  # tokens that the convolution sees, its own included
    bias: bool = False  # everywhere

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from linear(prefix, "input", (3 * self.dim, self.dim), self.bias)
        yield from convolution(prefix, "conv", self.dim, self.width, self.bias)
        yield from linear(prefix, "output", (self.dim, self.dim), self.bias)

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        return (State(recent=(self.width - 1) * self.dim, sums=0, logged=self.dim),)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return 6 * self.dim


@dataclass(frozen=True)
class GatedDelta:
    """Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464): each head has a matrix that maps keys to values.

    Value heads share keys and queries in groups. z gates the output after its norm; beta is how far a token writes,
    decay how much of what was is left.
    """

    dim: int
    key_heads: int
    value_heads: int
    key_dim: int  # of a head
    value_dim: int
    width: int  # tokens that the convolution of queries, keys and values sees
    norm: Norm  # of each head's output
    beta_scale: float = 1.0  # 2: what a key maps to may be turned around (arXiv 2411.12537)

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        for name, rows in self.projections.items():
            yield from linear(prefix, name, (rows, self.dim), False)
        yield from convolution(prefix, "conv", self.convolved, self.width, False)
        yield TensorSpec(f"{prefix}.dt_bias", (self.value_heads,), "vector")
        yield TensorSpec(f"{prefix}.A_log", (self.value_heads,), "vector", precise=True)
        yield from self.norm.tensors(f"{prefix}.norm", self.value_dim)
        yield from linear(prefix, "output", (self.dim, self.value_heads * self.value_dim), False)

    @property
    def projections(self) -> dict[str, int]:
        """The projections of the input and their outputs, in the order they are computed in."""
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        heads = self.value_heads
        return {"query": keys, "key": keys, "value": values, "z": values, "beta": heads, "decay": heads}

    @property
    def convolved(self) -> int:
        """Channels that go through the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        state = self.value_heads * self.key_dim * self.value_dim
        tail = (self.width - 1) * self.convolved
        return (State(recent=tail, sums=state, logged=sum(self.projections.values())),)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        # in chunks of 64 tokens, a head's scores, decays and inverse are 64 values a token each
        return sum(self.projections.values()) * 3 + self.value_heads * (4 * 64 + 3 * self.key_dim)
