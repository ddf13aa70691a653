"""Several mixers of one input, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.step import Step
from macllm.spec import ParallelMixers


class ParallelMixersBlock(Module):
    """The sum of what the mixers make of the same states; each has as many of the caches as its spec says."""

    def __init__(self, spec: ParallelMixers, mixers: Mapping[str, Any]) -> None:
        super().__init__()
        self._spans: dict[str, slice] = {}
        start = 0
        for name, mixer in spec.mixers:
            self[name] = mixers[name]
            self._spans[name] = slice(start, start + len(mixer.caches))
            start += len(mixer.caches)

    def __call__(self, x: mx.array, step: Step, caches: Sequence[Any]) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        first, *others = (self[name](x, step, caches[span]) for name, span in self._spans.items())
        total: mx.array = sum(others, first)
        return total
