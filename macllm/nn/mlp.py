"""Gated feed-forward block."""

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import gate_function
from macllm.nn.parameters import Parameters
from macllm.spec import MLP


class MLPBlock(Module):
    """``down(activation(gate(x)) * up(x))``, gate and up in one matrix."""

    def __init__(self, spec: MLP, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.gate_up = parameters.linear(prefix, "gate", "up", bias=spec.bias)
        self.down = parameters.linear(prefix, "down", bias=spec.bias)
        self._gated = gate_function(spec.activation)

    def __call__(self, x: mx.array) -> mx.array:
        gate, up = mx.split(self.gate_up(x), 2, axis=-1)  # (B, L, hidden) each
        return self.down(self._gated(gate, up))
