"""Normalization."""

import mlx.core as mx
from mlx.nn.layers.base import Module


class RMSNorm(Module):
    """``x / rms(x) * weight`` over the last axis (Zhang and Sennrich 2019), accumulated in float32."""

    def __init__(self, weight: mx.array, eps: float) -> None:
        super().__init__()
        self.weight = weight  # (D,)
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, self.weight, self.eps)
