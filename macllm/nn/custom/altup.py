"""Alternating updates (AltUp, arXiv 2301.13310) as Gemma 3n has them: several states a token, one of them computed."""

import math
from collections.abc import Sequence

import mlx.core as mx

from macllm.families.custom.altup import AltUpLayer, Streams
from macllm.nn.cache import LayerCache
from macllm.nn.custom.side import SideInputsBlock, SideLayerBlock
from macllm.nn.parameters import Parameters
from macllm.nn.step import Step

_LEAST_SQUARE = 1e-5  # of a state that is brought to another's magnitude


class StreamsBlock(SideInputsBlock):
    """Per-layer inputs, and the states beside the embedding: projections of it, as long as it is."""

    def __init__(self, spec: Streams, parameters: Parameters) -> None:
        super().__init__(spec, parameters)
        others = range(spec.streams - 1)
        self.spread = parameters.linear("frame", *(f"spread.{index}" for index in others))
        self.gather = [parameters.linear("frame", f"gather.{index}") for index in others]

    def begin(self, tokens: mx.array, x: mx.array, step: Step) -> mx.array:
        """Ids (B, L) and their embedding (B, L, D) to the states (B, L, N, D)."""
        x = super().begin(tokens, x, step)[:, :, None]
        others = self.spread(x).reshape(*x.shape[:2], -1, x.shape[-1])
        return mx.concatenate([x, _as_long_as(x, others)], axis=2)

    def end(self, x: mx.array) -> mx.array:
        """States (B, L, N, D) to their mean (B, L, D)."""
        first, others = mx.split(x, [1], axis=2)
        back = [gather(others[:, :, index]) for index, gather in enumerate(self.gather)]
        return mx.concatenate([first, _as_long_as(first, mx.stack(back, axis=2))], axis=2).mean(axis=2)


class AltUpLayerBlock(SideLayerBlock):
    """A layer over states (B, L, N, D): all are predicted, the active one is computed, all are corrected by it."""

    takes_adapters = False  # it goes through its blocks in a way of its own

    def __init__(self, layer: AltUpLayer, parameters: Parameters, prefix: str) -> None:
        super().__init__(layer, parameters, prefix)
        self.router = parameters.linear(prefix, "router")
        self.prediction = parameters.vector(f"{prefix}.prediction", wide=True)  # (N N, N)
        self.correction = parameters.vector(f"{prefix}.correction", wide=True)  # (N, N)
        self.side_scale = parameters.vector(f"{prefix}.side_scale")
        self.laurel_down = parameters.linear(prefix, "laurel_down")
        self.laurel_up = parameters.linear(prefix, "laurel_up")
        self._streams, self._active, self._scaled_side = layer.streams, layer.active, layer.scaled_side

    def __call__(self, x: mx.array, step: Step, caches: Sequence[LayerCache]) -> mx.array:
        """(B, L, N, D) to (B, L, N, D)."""
        predicted = self._predicted(x)
        active = predicted[:, :, self._active]
        computed = self._computed(active, step, caches)
        weights = self._modalities(computed) @ self.correction.T + 1  # (B, L, N)
        change = (computed - active)[:, :, None]
        corrected = predicted + weights[..., None].astype(x.dtype) * change
        first = corrected[:, :, self._active]
        if self._scaled_side:
            first = first * self.side_scale
        side = self.with_side(first, step)[:, :, None]
        return mx.concatenate([corrected[:, :, :1], corrected[:, :, 1:] + side], axis=2)

    def _computed(self, active: mx.array, step: Step, caches: Sequence[LayerCache]) -> mx.array:
        """The active state (B, L, D) through attention, beside it the residual of low rank, and feed-forward."""
        h = self.mixer_norm(active)
        laurel: mx.array = h + self.laurel_norm(self.laurel_up(self.laurel_down(h)))
        attended = active + self.mixer_post_norm(self.mixer(h, step, caches))
        y: mx.array = (attended + laurel) * math.sqrt(0.5)
        fed: mx.array = self.channel_post_norm(self.channel(self.channel_norm(y)))
        return y + fed

    def _predicted(self, x: mx.array) -> mx.array:
        """Each state plus a mixture of all, whose weights the active one decides (B, L, N, D)."""
        weights = self._modalities(x[:, :, self._active]) @ self.prediction.T  # (B, L, N N)
        weights = weights.reshape(*x.shape[:2], self._streams, self._streams)
        return x + weights.astype(x.dtype) @ x

    def _modalities(self, x: mx.array) -> mx.array:
        """What a state (B, L, D) is made of (B, L, N), in float32."""
        routed = self.router(self.router_norm(x)).astype(mx.float32)
        return mx.tanh(routed / x.shape[-1])


def _as_long_as(x: mx.array, others: mx.array) -> mx.array:
    """``others`` with the length of ``x``, over the last axis."""
    length = mx.sqrt(mx.mean(mx.square(x), axis=-1, keepdims=True))
    squares = mx.mean(mx.square(others), axis=-1, keepdims=True)
    return others * (length * mx.rsqrt(mx.maximum(squares, _LEAST_SQUARE)))
