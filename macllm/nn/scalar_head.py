"""A head of one number beside a model's own: how good what a text ends with is."""

import math

import mlx.core as mx
from mlx.nn.layers.base import Module

NAME = "scalar_head"  # of the module in a model


class ScalarHead(Module):
    """States (..., D) to numbers (...), in float32."""

    def __init__(self, weight: mx.array) -> None:
        """``weight``: (D,)."""
        super().__init__()
        self.weight = weight

    @classmethod
    def first(cls, dim: int, seed: int) -> "ScalarHead":
        """One to learn from: normal, with variance 1 / (D + 1), as in arXiv 2009.01325."""
        return cls(mx.random.normal((dim,), key=mx.random.key(seed)) / math.sqrt(dim + 1))

    def __call__(self, states: mx.array) -> mx.array:
        return states.astype(mx.float32) @ self.weight.astype(mx.float32)
