"""Architectures without a native family, run by mlx-lm's classes behind the same engine.

The only module that imports mlx-lm, and only when such a model is loaded.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_map

from macllm.backend import Backend, check_fits
from macllm.engine.placement import DTYPES
from macllm.errors import CheckpointError, ConfigError
from macllm.families import FAMILIES
from macllm.nn.cache import Cache
from macllm.weights.model_files import ModelFiles
from macllm.weights.safetensors import read_headers


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
        import copy

        return ForeignCache(copy.deepcopy(self.cache))

    def arrays(self) -> list[mx.array]:
        state = [] if self.cache.empty() else self.cache.state
        return [array for array in _flat(state) if isinstance(array, mx.array)]


class FallbackModel:
    """A model of mlx-lm. Its ``hidden`` gives logits: where the head begins differs from class to class."""

    separate_head = False

    def __init__(self, model: Module) -> None:
        self.model = model

    def hidden(self, tokens: mx.array, caches: Sequence[ForeignCache]) -> mx.array:
        foreign = [cache.cache for cache in caches]
        logits: mx.array = self.model(tokens, cache=foreign)
        return logits

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden

    def make_caches(self) -> Sequence[Cache]:
        from mlx_lm.models.cache import make_prompt_cache

        return [ForeignCache(cache) for cache in make_prompt_cache(self.model)]


def load_fallback(files: ModelFiles, backend: Backend) -> FallbackModel:
    """Raises ConfigError where mlx-lm has no class either, CheckpointError where the weights do not go with it."""
    known = f"native: {', '.join(sorted(FAMILIES))}; others through mlx-lm"
    if files.gguf is not None or "model_type" not in files.config:
        raise ConfigError(
            f"{files.label}: model_type={files.config.get('model_type')!r} is not supported ({known})"
        )
    from mlx_lm.utils import _get_classes, load_model

    try:
        _get_classes(files.config)
    except (ValueError, KeyError):
        raise ConfigError(
            f"{files.label}: model_type={files.config['model_type']!r} is not supported ({known})"
        ) from None
    weights = sum(
        entry.nbytes for entry in read_headers(files.path).values()
    )  # refuses what is not whole, by name
    check_fits(weights, str(files.path), backend)
    try:
        model, _ = load_model(files.path, lazy=True)
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{files.path}: mlx-lm cannot load it: {reason}; download the model again"
        ) from None
    dtype = DTYPES[backend.dtype]
    floats = (mx.float16, mx.bfloat16, mx.float32)
    model.update(
        tree_map(lambda array: array.astype(dtype) if array.dtype in floats else array, model.parameters())
    )
    mx.eval(model.parameters())
    return FallbackModel(model)


def _flat(state: Any) -> list[Any]:
    if isinstance(state, list | tuple):
        return [leaf for item in state for leaf in _flat(item)]
    return [state]
