"""Causal depthwise convolution over positions: what recurrent mixers see of the few tokens before."""

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import activation_function
from macllm.nn.parameters import Parameters


class CausalConvolution(Module):
    """Of each channel the last K values, weighed and summed; with a bias and an activation where it has them.

    What it remembers is its tail, the K - 1 inputs before the next one; a sequence begins with zeros.
    """

    def __init__(
        self, parameters: Parameters, prefix: str, *, bias: bool = False, silu: bool = False
    ) -> None:
        super().__init__()
        self.weight = parameters.vector(f"{prefix}.weight")  # (C, K)
        if bias:
            self.bias = parameters.vector(f"{prefix}.bias")  # (C,)
        self._activate = activation_function("silu") if silu else None
        # MLX's kernel takes grouped convolutions one product at a time on CPU
        self._convolve = kernel if mx.default_device() == mx.gpu else shifted

    def __call__(self, x: mx.array, tail: mx.array | None) -> tuple[mx.array, mx.array]:
        """Inputs (B, L, C) after a tail (B, K - 1, C) or none, to outputs (B, L, C) and the tail after them."""
        batch, length, channels = x.shape
        weight: mx.array = self["weight"]
        if tail is None:
            tail = mx.zeros((batch, weight.shape[1] - 1, channels), x.dtype)
        inputs = mx.concatenate([tail, x], axis=1)  # (B, K - 1 + L, C)
        y = self._convolve(inputs, weight)
        if "bias" in self:
            y = y + self["bias"]
        if self._activate is not None:
            y = self._activate(y)
        tail = inputs[:, length:]
        # a copy: a view would hold all the inputs in memory
        return y, mx.contiguous(tail) if length > 1 else tail


def kernel(inputs: mx.array, weight: mx.array) -> mx.array:
    """(B, K - 1 + L, C) with weight (C, K) to (B, L, C), by MLX's kernel, which sums in float32."""
    return mx.conv1d(inputs, weight[..., None], groups=weight.shape[0])


def shifted(inputs: mx.array, weight: mx.array) -> mx.array:
    """:func:`kernel` as a sum of K shifted products."""
    dtype, width = inputs.dtype, weight.shape[1]
    length = inputs.shape[1] - width + 1
    inputs, taps = inputs.astype(mx.float32), weight.T.astype(mx.float32)  # (K, C)
    if length == 1:
        return (inputs * taps).sum(axis=1, keepdims=True).astype(dtype)
    y = inputs[:, :length] * taps[0]
    for step in range(1, width):
        y = y + inputs[:, step : step + length] * taps[step]
    return y.astype(dtype)
