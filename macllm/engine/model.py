"""What the engine asks of a model, whoever wrote its classes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import mlx.core as mx

from macllm.nn.cache import Cache


class Model(Protocol):
    """Token ids in, logits out, with a cache a layer. The two halves are apart so that prefill can skip the head."""

    @property
    def separate_head(self) -> bool:
        """Whether ``logits`` costs something that skipping it saves; else ``hidden`` gives the logits."""

    @property
    def layered(self) -> bool:
        """Whether ``hidden`` calls ``between``."""

    @property
    def learned(self) -> str:
        """Tells what was learned beside it, where that can change: caches made with another are worth nothing."""

    def hidden(
        self,
        tokens: mx.array,
        caches: Sequence[Any],
        between: Callable[[mx.array], None] | None = None,
        ahead: int = 0,
    ) -> mx.array:
        """Ids (B, L) to states (B, L, D); adds the tokens to ``caches``, which this model made.

        ``between`` is called with the output of each layer that another follows, and may raise. ``ahead`` tokens of
        the same prompt are to follow.
        """

    def logits(self, hidden: mx.array) -> mx.array:
        """States (B, L, D) to logits (B, L, V)."""

    def make_caches(self) -> Sequence[Cache]:
        """An empty cache a layer."""
