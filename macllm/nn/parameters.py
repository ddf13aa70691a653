"""Where the blocks take their parameters from while a model is being built."""

from typing import Protocol

import mlx.core as mx

from macllm.nn.linear import AnyLinear, Embedding
from macllm.nn.stack import AnyStack


class Parameters(Protocol):
    """Gives each block its parameters by canonical name, placed as the backend wants them."""

    def linear(self, prefix: str, *names: str, bias: bool = False) -> AnyLinear:
        """The projections ``prefix.name`` of one input, as one layer."""

    def stack(self, prefix: str, *names: str, bias: bool = False) -> AnyStack:
        """The stacks of matrices ``prefix.name``, with one input, as one layer."""

    def embedding(self, name: str) -> Embedding:
        """The embedding ``name.weight``."""

    def vector(self, name: str, *, wide: bool = False) -> mx.array:
        """A small tensor by its whole name, in the compute dtype or, ``wide``, in float32."""
