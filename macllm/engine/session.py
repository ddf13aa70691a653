"""One sequence: its caches and exactly the tokens that are in them, also after an interruption."""

from collections.abc import Sequence

import mlx.core as mx

from macllm.engine.model import Model
from macllm.nn.cache import Cache


class Session:
    """Keeps a conversation's caches between requests, so that only what is new is computed."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._learned = model.learned
        self.caches: Sequence[Cache] = model.make_caches()
        self.tokens: list[int] = []  # what the caches hold

    @property
    def kv_bytes(self) -> int:
        """Bytes of the keys and values in view."""
        return sum(cache.nbytes for cache in self.caches)

    def prepare(self, prompt: Sequence[int]) -> int:
        """Rewinds to the longest prefix shared with ``prompt`` and returns its length.

        At least the prompt's last token is left to compute: its logits are what decoding starts from. Where a
        cache cannot go back that far, or the model has another adapter since, all start anew.
        """
        if self._learned != self._model.learned:
            self.reset()
        shared = common_prefix(self.tokens, prompt[:-1])
        surplus = len(self.tokens) - shared
        if any(cache.rewindable() < surplus for cache in self.caches):
            self.reset()
            return 0
        for cache in self.caches:
            cache.rewind(surplus)
        del self.tokens[shared:]
        return shared

    def reset(self) -> None:
        """Forgets everything."""
        self.caches = self._model.make_caches()
        self.tokens = []
        self._learned = self._model.learned

    def evaluate(self) -> None:
        """Computes what the caches still owe."""
        mx.eval([cache.arrays() for cache in self.caches])


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    for index, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return index
    return min(len(a), len(b))
