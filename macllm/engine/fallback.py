"""Architectures without a native family, run by mlx-lm's classes (imported only then) behind the same engine."""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_map

from macllm.backend import Backend, check_fits
from macllm.nn.stored import DTYPES
from macllm.weights import foreign_model
from macllm.weights.model_files import ModelFiles


class ForeignCache:
    """One of mlx-lm's caches behind the engine's interface."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    @property
    def offset(self) -> int:
        return int(getattr(self.cache, "offset", 0))

    @property
    def nbytes(self) -> int:
        return int(self.cache.nbytes)

    @property
    def allocated_bytes(self) -> int:
        return self.nbytes

    def rewindable(self) -> int:
        return self.offset if self.cache.is_trimmable() else 0

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} tokens")
        self.cache.trim(tokens)

    def copy(self) -> "ForeignCache":
        return ForeignCache(copy.deepcopy(self.cache))

    def arrays(self) -> list[mx.array]:
        state = [] if self.cache.empty() else self.cache.state
        return [array for array in _flat(state) if isinstance(array, mx.array)]


class FallbackModel:
    """A model of mlx-lm. Its ``hidden`` gives logits: where the head begins differs from class to class."""

    separate_head = False
    layered = False
    learned = ""

    def __init__(self, model: Module) -> None:
        self.model = model

    @cached_property
    def vocab(self) -> int:
        """Width of the logits, which not every config states; nothing is computed to know it."""
        return self.hidden(mx.array([[0]]), self.make_caches()).shape[-1]

    def hidden(
        self,
        tokens: mx.array,
        caches: Sequence[ForeignCache],
        between: Callable[[mx.array], None] | None = None,
        ahead: int = 0,
    ) -> mx.array:
        foreign = [cache.cache for cache in caches]
        logits: mx.array = self.model(tokens, cache=foreign)
        return logits

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden

    def make_caches(self) -> Sequence[ForeignCache]:
        from mlx_lm.models.cache import make_prompt_cache

        return [ForeignCache(cache) for cache in make_prompt_cache(self.model)]


def load_fallback(
    files: ModelFiles, backend: Backend, progress: Callable[[int, int], None] | None = None
) -> FallbackModel:
    """Raises ConfigError where mlx-lm has no class either, CheckpointError where the weights do not go with it.

    ``progress`` is told bytes in memory and bytes of all parameters; what it raises ends the load.
    """
    foreign_model.refuse_unknown(files)
    weights = sum(entry.nbytes for entry in files.headers.entries.values())  # names what is not whole
    check_fits(weights, str(files.path), backend)
    model, _ = foreign_model.load(files)
    dtype = DTYPES[backend.dtype]
    floats = (mx.float16, mx.bfloat16, mx.float32)
    model.update(
        tree_map(lambda array: array.astype(dtype) if array.dtype in floats else array, model.parameters())
    )
    _read(model, progress)
    return FallbackModel(model)


def _read(model: Module, progress: Callable[[int, int], None] | None) -> None:
    """Brings the parameters into memory one by one, so that a load can be watched and stopped."""
    parameters: list[mx.array] = []
    tree_map(parameters.append, model.parameters())
    total, done = sum(array.nbytes for array in parameters), 0
    for array in parameters:
        if progress is not None:
            progress(done, total)
        mx.eval(array)
        done += array.nbytes
    if progress is not None:
        progress(done, total)


def _flat(state: Any) -> list[Any]:
    if isinstance(state, list | tuple):
        return [leaf for item in state for leaf in _flat(item)]
    return [state]
