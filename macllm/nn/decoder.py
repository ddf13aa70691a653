"""The one decoder: embedding, layers, norm, head. Reads a ``ModelSpec`` and knows no architecture."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import soft_cap
from macllm.nn.beside import Beside
from macllm.nn.cache import LayerCache, make_caches
from macllm.nn.layers import frame_block, layer_block
from macllm.nn.linear import Linear, PackedLinear
from macllm.nn.norm import make_norm
from macllm.nn.parameters import Parameters
from macllm.nn.scalar_head import ScalarHead
from macllm.nn.stack import Stack
from macllm.nn.step import Step
from macllm.nn.stored import Dense, Stored
from macllm.nn.token_cache import TokenCache
from macllm.spec import ModelSpec

_RECOMPUTED = 512  # tokens a pass, where a sequence has outgrown a length


class Decoder(Module):
    """A language model over token ids."""

    separate_head = True
    layered = True
    learned = ""  # what an adapter, or weights put in place of its own, make of it; caches are of one alone

    def __init__(self, spec: ModelSpec, parameters: Parameters, kv_bits: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.kv_bits = kv_bits  # that caches pack keys and values in, where they may; None: plain
        # the largest first: its transient is not on top of the rest
        self.embed = parameters.embedding("embed")
        self.head = None if spec.tied else parameters.linear("", "head", bias=spec.head_bias)
        if spec.tied and spec.head_bias:
            self.head_bias = parameters.vector("head.bias")
        if spec.positions is not None:
            self.positions = parameters.embedding("positions")
        if spec.embed_norm is not None:
            self.embed_norm = make_norm(spec.embed_norm, parameters, "embed_norm")
        self.frame = frame_block(spec.frame, parameters) if spec.frame is not None else None
        self.layers = [
            layer_block(layer, parameters, f"layers.{index}") for index, layer in enumerate(spec.layers)
        ]
        ends = [0, *accumulate(len(layer.caches) for layer in spec.layers)]
        self._spans = tuple(slice(*span) for span in pairwise(ends))  # of the caches, one a layer
        for source in spec.sources:
            self.layers[source].mixer.lends = True
        self.norm = make_norm(spec.norm, parameters, "norm")

    def hidden(
        self,
        tokens: mx.array,
        caches: Sequence[LayerCache] | None = None,
        between: Callable[[mx.array], None] | None = None,
        ahead: int = 0,
    ) -> mx.array:
        """Ids (B, L) to normalized states (B, L, D). Appends to ``caches``, as :meth:`make_caches` gives them.

        ``between`` is called with what each layer gives that another follows. When it raises, the caches of the
        layers so far have the tokens and the others do not. ``ahead`` tokens of the same prompt are to follow: where
        rotations depend on a sequence's length, they are at once those of all of it.
        """
        length, first = tokens.shape[1], caches[0] if caches else None
        step = (
            Step(length, first.offset, first.padding, ahead)
            if first is not None
            else Step(length, ahead=ahead)
        )
        if "virtual" in self:  # what a method of training put before every sequence
            step.before = self["virtual"].before(self)
        if caches and isinstance(caches[-1], TokenCache):
            self._recompute(caches, caches[-1].outdated(step.totals), step, between)
            caches[-1].append(tokens)
        return self.norm(self._through_layers(tokens, step, caches, between))

    def _through_layers(
        self,
        tokens: mx.array,
        step: Step,
        caches: Sequence[LayerCache] | None,
        between: Callable[[mx.array], None] | None,
    ) -> mx.array:
        """Ids (B, L) to the states (B, L, D) after the last layer."""
        x = self.embedded(tokens, step)
        if self.frame is not None:
            x = self.frame.begin(tokens, x, step)
        for index, (span, layer) in enumerate(zip(self._spans, self.layers, strict=True)):
            if between is not None and index > 0:
                between(x)
            step.layer = index
            x = layer(x, step, caches[span] if caches is not None else ())
        return self.frame.end(x) if self.frame is not None else x

    def _recompute(
        self,
        caches: Sequence[LayerCache],
        ids: mx.array | None,
        step: Step,
        between: Callable[[mx.array], None] | None,
    ) -> None:
        """Fills the layers' caches anew with ids (B, S), all that they held, for the sequence of this step."""
        if ids is None:
            return
        of_layers, end = caches[:-1], step.offset + step.length + step.ahead
        for cache, empty in zip(of_layers, self.make_caches(), strict=False):
            cache.restore(*empty.content())
        for start in range(0, ids.shape[1], _RECOMPUTED):
            part = ids[:, start : start + _RECOMPUTED]
            before = Step(part.shape[1], start, step.padding, end - start - part.shape[1])
            self._through_layers(part, before, of_layers, between)
            mx.eval([cache.arrays() for cache in of_layers])

    def logits(self, hidden: mx.array) -> mx.array:
        """States (B, L, D) to logits (B, L, V)."""
        spec = self.spec
        y = self.embed.as_head(hidden) if self.head is None else self.head(hidden)
        if "head_bias" in self:
            y = y + self.head_bias
        if spec.logit_scale is not None:
            y = y * spec.logit_scale
        return y if spec.logit_cap is None else soft_cap(spec.logit_cap)(y)

    def __call__(self, tokens: mx.array, caches: Sequence[LayerCache] | None = None) -> mx.array:
        """Ids (B, L) to logits (B, L, V)."""
        return self.logits(self.hidden(tokens, caches))

    def make_caches(self, padding: Sequence[int] | None = None) -> list[LayerCache]:
        """Empty caches; ``padding`` for rows that begin with so many tokens that are none."""
        return make_caches(self.spec, padding, self.kv_bits)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        """Every tensor under its canonical name, stacked matrices taken apart; vectors as the model uses them.

        Of an adapted model the base's alone, and no head that was put beside its own.
        """
        for path, module in self.named_modules():
            if isinstance(module, Beside | ScalarHead):
                continue
            if isinstance(module, Linear | PackedLinear | Stack):
                yield from module.tensors()
                continue
            for name, value in module.items():
                if isinstance(value, mx.array) and not name.startswith("_"):
                    own = name.replace("head_bias", "head.bias")  # of a tied head, which is no module
                    # a weight for each head stands beside states (B, H, L, D)
                    yield (
                        f"{path}.{name}" if path else own,
                        Dense(value.squeeze(1) if value.ndim == 3 else value),
                    )

    def embedded(self, tokens: mx.array, step: Step) -> mx.array:
        """Ids (B, L) to what goes into the first layer, or into the frame around them, (B, L, D)."""
        x = self.embed(tokens)
        if self.spec.embed_scale is not None:
            x = x * self.spec.embed_scale  # in the type of x
        if self.spec.positions is not None:
            x = x + self.positions(step.positions)
        return self.embed_norm(x) if self.spec.embed_norm is not None else x
