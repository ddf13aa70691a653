"""Bottleneck adapters (arXiv 1902.00751, 2005.00247): after a block, down to a few numbers, an activation, and up."""

import mlx.core as mx

from macllm.nn.beside import Beside


class BottleneckAdapter(Beside):
    """``x + silu(x down + c) up + d``, computed in float32; with ``up`` and ``d`` zero it is ``x`` to the bit."""

    def __init__(self, place: str, down: mx.array, width: int) -> None:
        """``down`` (D, r); what goes up again is zero and ``width`` D wide."""
        super().__init__(place)
        self.down = down
        self.down_bias = mx.zeros(down.shape[-1])
        self.up = mx.zeros((down.shape[-1], width))
        self.up_bias = mx.zeros(width)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., D) to (..., D)."""
        inner = x.astype(self["down"].dtype) @ self["down"] + self["down_bias"]
        change = (inner * mx.sigmoid(inner)) @ self["up"] + self["up_bias"]
        y: mx.array = x + change.astype(x.dtype)
        return y
