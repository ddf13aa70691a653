"""Virtual tokens: keys and values that stand before every sequence and were learned, not read.

Prompt tuning (arXiv 2104.08691) learns embeddings that the model itself makes keys and values of; prefix tuning (arXiv
2101.00190) learns those of every layer. Either way they have the positions before 0: caches count and keep real tokens
alone, so all that reads, rewinds and saves caches needs to know nothing of them.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import mlx.core as mx

from macllm.nn.beside import Beside
from macllm.nn.step import Step

Pair: TypeAlias = tuple[mx.array, mx.array]  # keys and values (1, K, P, d), as a cache has them
PLACE = "virtual"


class VirtualTokens(Beside):
    """What stands before a sequence."""

    def __init__(self) -> None:
        super().__init__(PLACE)

    @property
    @abstractmethod
    def first_layer(self) -> int:
        """The first layer that anything of it is in."""

    @abstractmethod
    def before(self, model: Any) -> Mapping[int, Pair]:
        """Keys and values by layer, of a :class:`macllm.nn.decoder.Decoder`."""


class Prompt(VirtualTokens):
    """Embeddings (P, D), as they go into the first layer."""

    def __init__(self, embeddings: mx.array) -> None:
        super().__init__()
        self.embeddings = embeddings.astype(mx.float32)
        self._dtype = embeddings.dtype
        self._known: tuple[mx.array, Mapping[int, Pair]] | None = None

    @property
    def first_layer(self) -> int:
        return 0

    def before(self, model: Any) -> Mapping[int, Pair]:
        """Out of training they are computed once, and kept until the embeddings are others."""
        embeddings = self["embeddings"]
        if not self.training and self._known is not None and self._known[0] is embeddings:
            return self._known[1]
        found = pairs(model, embeddings.astype(self._dtype))
        if not self.training:
            self._known = (embeddings, found)
        return found


class Prefix(VirtualTokens):
    """Keys and values of layers."""

    def __init__(self, of_layers: Mapping[int, Pair]) -> None:
        super().__init__()
        self._places = {layer: prefix_place(layer) for layer in of_layers}
        for layer, (k, v) in of_layers.items():
            self[self._places[layer]] = {
                "k": k[0].astype(mx.float32),
                "v": v[0].astype(mx.float32),
            }  # (K, P, d)

    @property
    def first_layer(self) -> int:
        return min(self._places)

    def before(self, model: Any) -> Mapping[int, Pair]:
        """As they are."""
        return {
            layer: (self[place]["k"][None], self[place]["v"][None]) for layer, place in self._places.items()
        }


def prefix_place(layer: int) -> str:
    """Under which a prefix has a layer's keys and values; a number alone would be read as a place in a list."""
    return f"layer_{layer}"


def pairs(model: Any, embeddings: mx.array) -> dict[int, Pair]:
    """The keys and values that a model makes of embeddings (P, D) at the positions before 0, by layer."""
    step = Step(len(embeddings), -len(embeddings))
    step.keeps = {}
    x = embeddings[None]
    for index, layer in enumerate(model.layers):
        step.layer = index
        x = layer(x, step, ())
    return step.keeps


def joined(before: Pair | None, seen: Pair) -> Pair:
    """What is in view (B, K, S, d) with the virtual tokens before it (B, K, P + S, d)."""
    if before is None:
        return seen
    batch = seen[0].shape[0]
    k, v = (
        mx.concatenate([mx.broadcast_to(own, (batch, *own.shape[1:])).astype(others.dtype), others], axis=2)
        for own, others in zip(before, seen, strict=True)
    )
    return k, v
