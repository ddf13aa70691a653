"""Feed-forward block."""

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import XIELU, activation_function, gate_function
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
        if spec.activation == "xielu":
            self.activation = XIELU(parameters, f"{prefix}.activation")
        elif not spec.gated:
            self._activate = activation_function(spec.activation)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        y: mx.array = self["up"](x)
        if self._gate is not None:
            y = self._gate(*mx.split(y, 2, axis=-1))  # (B, L, hidden) each
        else:
            y = self["activation"](y) if "activation" in self else self._activate(y)
        out: mx.array = self["down"](self["down_norm"](y) if "down_norm" in self else y)
        return out
