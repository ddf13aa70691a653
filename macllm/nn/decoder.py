"""The one decoder: embedding, layers, norm, head. Reads a ``ModelSpec`` and knows no architecture."""

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.attention import AttentionBlock
from macllm.nn.cache import AttentionCache, make_caches
from macllm.nn.linear import Linear, PackedLinear
from macllm.nn.masks import Mask, attention_mask
from macllm.nn.mlp import MLPBlock
from macllm.nn.norm import RMSNorm
from macllm.nn.parameters import Parameters
from macllm.nn.stored import Dense, Stored
from macllm.spec import Layer, ModelSpec


class LayerBlock(Module):
    """A mixer and a channel block, each with its norms and its residual."""

    def __init__(self, spec: ModelSpec, layer: Layer, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.mixer = AttentionBlock(layer.mixer, parameters, f"{prefix}.mixer")
        self.channel = MLPBlock(layer.channel, parameters, f"{prefix}.channel")
        for norm in layer.norms:
            self[norm] = RMSNorm(parameters.vector(f"{prefix}.{norm}.weight"), spec.norm_eps)
        self._sandwich = layer.placement == "sandwich"

    def __call__(self, x: mx.array, mask: Mask, cache: AttentionCache | None) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        y = self.mixer(self.mixer_norm(x), mask, cache)
        x = x + (self.mixer_post_norm(y) if self._sandwich else y)
        y = self.channel(self.channel_norm(x))
        return x + (self.channel_post_norm(y) if self._sandwich else y)


class Decoder(Module):
    """A language model over token ids."""

    separate_head = True
    layered = True

    def __init__(self, spec: ModelSpec, parameters: Parameters) -> None:
        super().__init__()
        self.spec = spec
        self.embed = parameters.embedding(
            "embed"
        )  # the largest first: its transient is not on top of the rest
        self.head = None if spec.tied else parameters.linear("", "head")
        self.layers = [
            LayerBlock(spec, layer, parameters, f"layers.{index}") for index, layer in enumerate(spec.layers)
        ]
        self.norm = RMSNorm(parameters.vector("norm.weight"), spec.norm_eps)

    def hidden(
        self,
        tokens: mx.array,
        caches: Sequence[AttentionCache] | None = None,
        between: Callable[[mx.array], None] | None = None,
    ) -> mx.array:
        """Ids (B, L) to normalized states (B, L, D). Appends to ``caches``, one a layer.

        ``between`` is called with the output (B, L, D) of each layer that another follows. When it raises, the
        caches of the layers so far have the tokens and the others do not.
        """
        x = self.embed(tokens)
        if self.spec.embed_scale is not None:
            x = x * mx.array(self.spec.embed_scale, x.dtype)
        masks = self._masks(tokens.shape[1], caches)
        for index, (spec, layer) in enumerate(zip(self.spec.layers, self.layers, strict=True)):
            if between is not None and index > 0:
                between(x)
            x = layer(x, masks[spec.mixer.window], caches[index] if caches is not None else None)
        return self.norm(x)

    def logits(self, hidden: mx.array) -> mx.array:
        """States (B, L, D) to logits (B, L, V)."""
        return self.embed.as_head(hidden) if self.head is None else self.head(hidden)

    def __call__(self, tokens: mx.array, caches: Sequence[AttentionCache] | None = None) -> mx.array:
        """Ids (B, L) to logits (B, L, V)."""
        return self.logits(self.hidden(tokens, caches))

    def make_caches(self) -> list[AttentionCache]:
        return make_caches(self.spec)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        """Every tensor under its canonical name, stacked matrices taken apart; norms as the model uses them."""
        for path, module in self.named_modules():
            if isinstance(module, RMSNorm):
                yield f"{path}.weight", Dense(module.weight)
        for module in self._matrices():
            yield from module.tensors()

    def _matrices(self) -> Iterator[Linear | PackedLinear]:
        for module in self.modules():
            if isinstance(module, Linear | PackedLinear):
                yield module

    def _masks(self, length: int, caches: Sequence[AttentionCache] | None) -> dict[int | None, Mask]:
        """One mask for each distinct window."""
        masks: dict[int | None, Mask] = {}
        for index, layer in enumerate(self.spec.layers):
            window = layer.mixer.window
            if window not in masks:
                keys = caches[index].in_view(length) if caches is not None else length
                masks[window] = attention_mask(length, keys, window)
        return masks
