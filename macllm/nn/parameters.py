"""Where the blocks take their parameters from while a model is being built."""

from typing import Protocol

import mlx.core as mx

from macllm.nn.linear import AnyLinear, Embedding


class Parameters(Protocol):
    """Gives each block its parameters by canonical name, placed as the backend wants them."""

    def linear(self, prefix: str, *names: str, bias: bool = False) -> AnyLinear:
        """The projections ``prefix.name`` of one input, as one layer."""

    def embedding(self, name: str) -> Embedding:
        """The embedding ``name.weight``."""

    def vector(self, name: str) -> mx.array:
        """A norm's weight, offset folded in, in the compute dtype."""
