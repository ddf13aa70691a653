"""Feed-forward block."""

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.kernels import fusions
from macllm.nn.activations import XIELU, activation_function, gate_function
from macllm.nn.linear import PackedLinear
from macllm.nn.norm import make_norm
from macllm.nn.parameters import Parameters
from macllm.spec import MLP


class MLPBlock(Module):
    """``down(activation(gate(x)) * up(x))``, gate and up in one matrix; or ``down(activation(up(x)))``."""

    def __init__(self, spec: MLP, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.up = parameters.linear(prefix, *spec.inputs, bias=spec.bias)
        self.down = parameters.linear(prefix, "down", bias=spec.bias)
        if spec.down_norm is not None:
            self.down_norm = make_norm(spec.down_norm, parameters, f"{prefix}.down_norm")
        self._gate = gate_function(spec.activation) if spec.gated else None
        self._fuses = spec.gated and spec.activation == "silu" and fusions.possible()
        if spec.activation == "xielu":
            self.activation = XIELU(parameters, f"{prefix}.activation")
        elif not spec.gated:
            self._activate = activation_function(spec.activation)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        y = self._fused(x) if self._fuses else None
        if y is None:
            y = self._activated(self["up"](x))
        out: mx.array = self["down"](self["down_norm"](y) if "down_norm" in self else y)
        return out

    def _fused(self, x: mx.array) -> mx.array | None:
        up = self["up"]  # not what it was, where an adapter has taken its place
        return up.swiglu(x) if isinstance(up, PackedLinear) else None

    def _activated(self, y: mx.array) -> mx.array:
        if self._gate is not None:
            return self._gate(*mx.split(y, 2, axis=-1))  # (B, L, hidden) each
        found: mx.array = self["activation"](y) if "activation" in self else self._activate(y)
        return found
