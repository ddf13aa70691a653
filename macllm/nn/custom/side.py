"""Per-layer inputs (Gemma 3n and 4), and layers that take them."""

import math
from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.families.custom.side import SideInputs, SideLayer
from macllm.nn.activations import gate_function
from macllm.nn.cache import LayerCache
from macllm.nn.layer import LayerBlock
from macllm.nn.norm import make_norm
from macllm.nn.parameters import Parameters
from macllm.nn.step import Step


class SideInputsBlock(Module):
    """Gives each layer its input: what a table has for the token, and a projection of the embedding, in equal parts."""

    def __init__(self, spec: SideInputs, parameters: Parameters) -> None:
        super().__init__()
        self.spec = spec
        self.table = parameters.embedding("frame.table")
        self.project = parameters.linear("frame", "project")
        self.norm = make_norm(spec.norm, parameters, "frame.norm")

    def begin(self, tokens: mx.array, x: mx.array, step: Step) -> mx.array:
        """Ids (B, L) and their embedding (B, L, D) to the states; the step gets the layers' inputs."""
        spec = self.spec
        shape = (*tokens.shape, spec.layers, spec.width)
        known = mx.where(tokens < spec.vocab, tokens, 0)  # the last ids stand for images and sounds
        own = self.table(known).reshape(shape) * math.sqrt(spec.width)
        shared = self.norm((self.project(x) * x.shape[-1] ** -0.5).reshape(shape))  # (B, L, n, P)
        both = (own + shared) * math.sqrt(0.5)
        step.sides = [both[:, :, index] for index in range(spec.layers)]
        return x

    def end(self, x: mx.array) -> mx.array:
        """States (B, L, D) as they are."""
        return x


class SideLayerBlock(LayerBlock):
    """A layer whose states meet the layer's input at its end."""

    def __init__(self, layer: SideLayer, parameters: Parameters, prefix: str) -> None:
        super().__init__(layer, parameters, prefix)
        if layer.side is not None:
            self.side_gate = parameters.linear(prefix, "side_gate")
            self.side_out = parameters.linear(prefix, "side_out")
            self._meet = gate_function(layer.side_activation)
        if layer.scaled:
            self.scalar = parameters.vector(f"{prefix}.scalar")

    def __call__(self, x: mx.array, step: Step, caches: Sequence[LayerCache]) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        x = super().__call__(x, step, caches)
        if "side_gate" in self:
            x = x + self.with_side(x, step)
        return x * self.scalar if "scalar" in self else x

    def with_side(self, x: mx.array, step: Step) -> mx.array:
        """What states (B, L, D) and the layer's input make (B, L, D)."""
        y: mx.array = self.side_norm(self.side_out(self._meet(self.side_gate(x), step.sides[step.layer])))
        return y
