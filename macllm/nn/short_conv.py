"""Gated short convolution (LFM2): of the tokens before, it remembers the last few."""

from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.convolution import CausalConvolution
from macllm.nn.parameters import Parameters
from macllm.nn.state_cache import Inputs, StateCache, States, run
from macllm.nn.step import Step
from macllm.spec import ShortConv


class ShortConvBlock(Module):
    """``output(c * conv(b * x))``, with b, c and x projected from the input."""

    def __init__(self, spec: ShortConv, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.input = parameters.linear(prefix, "input", bias=spec.bias)
        self.conv = CausalConvolution(parameters, f"{prefix}.conv", bias=spec.bias)
        self.output = parameters.linear(prefix, "output", bias=spec.bias)

    def __call__(self, x: mx.array, step: Step, caches: Sequence[StateCache]) -> mx.array:
        """(B, L, D) to (B, L, D); the cache has what the convolution saw of the tokens before."""
        b, c, x = mx.split(self.input(x), 3, axis=-1)
        return self.output(c * run(self._convolved, (step.without_padding(b * x),), caches))

    def _convolved(self, inputs: Inputs, states: States | None) -> tuple[mx.array, States]:
        y, tail = self.conv(inputs[0], states[0] if states is not None else None)
        return y, (tail,)
