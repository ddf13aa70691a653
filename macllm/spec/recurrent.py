"""Mixers that carry a state of fixed size from token to token, as data.

Their tensors have names of their own, since layers of attention stand beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from macllm.spec.memory import CacheSpec, State
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
