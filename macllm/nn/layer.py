"""One layer: a mixer over positions and a block over channels, with their norms and residuals.

In what runs once a layer and token, here and in other blocks, a block's parts are taken by ``self["part"]``: MLX's
modules are dicts, and finding a part as an attribute takes ten times as long.
"""

from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.blocks import channel_block, mixer_block
from macllm.nn.cache import LayerCache
from macllm.nn.norm import RMSNorm, make_norm
from macllm.nn.parameters import Parameters
from macllm.nn.step import Step
from macllm.spec import Layer


class LayerBlock(Module):
    """A mixer and a channel block, each with its norms and its residual; either may be missing.

    A ``mixer_adapter`` and a ``channel_adapter`` may change what each gives, where a method of training put them.
    """

    takes_adapters = True

    def __init__(self, layer: Layer, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self._mixer_caches = len(layer.mixer.caches) if layer.mixer is not None else 0
        if layer.mixer is not None:
            self.mixer = mixer_block(layer.mixer, parameters, f"{prefix}.mixer")
        if layer.channel is not None:
            self.channel = channel_block(layer.channel, parameters, f"{prefix}.channel")
        for norm in layer.norms:
            self[norm] = make_norm(layer.norm, parameters, f"{prefix}.{norm}")
        self._channel_remembers = layer.channel is not None and len(layer.channel.caches) > 0
        self._parallel = layer.placement in ("parallel", "parallel_two")
        self._scale = layer.residual_scale
        between = self.get("channel_norm")
        self._fuses = "mixer" in self and isinstance(between, RMSNorm) and between.fuses

    def __call__(self, x: mx.array, step: Step, caches: Sequence[LayerCache]) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        if self._parallel:
            h = self["mixer_norm"](x)
            y = self["mixer"](h, step, caches)
            if "mixer_adapter" in self:
                y = self["mixer_adapter"](y)
            y = y + self._through_channel(
                self["channel_norm"](x) if "channel_norm" in self else h, step, caches
            )
            return x + self._scaled(y)
        if "mixer" in self:
            y = self["mixer"](self["mixer_norm"](x) if "mixer_norm" in self else x, step, caches)
            if "mixer_adapter" in self:
                y = self["mixer_adapter"](y)
            y = self._scaled(self["mixer_post_norm"](y) if "mixer_post_norm" in self else y)
            if self._fuses:
                x, h = self["channel_norm"].of_sum(x, y)
            else:
                x = x + y
        if "channel" in self:
            if not self._fuses:
                h = self["channel_norm"](x) if "channel_norm" in self else x
            y = self._through_channel(h, step, caches)
            x = x + self._scaled(self["channel_post_norm"](y) if "channel_post_norm" in self else y)
        return x

    def _through_channel(self, x: mx.array, step: Step, caches: Sequence[LayerCache]) -> mx.array:
        y: mx.array = (
            self["channel"](x, step, caches[self._mixer_caches :])
            if self._channel_remembers
            else self["channel"](x)
        )
        return self["channel_adapter"](y) if "channel_adapter" in self else y

    def _scaled(self, y: mx.array) -> mx.array:
        return y if self._scale == 1.0 else y * self._scale
