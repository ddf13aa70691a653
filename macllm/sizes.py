"""Bytes by arithmetic: weights, KV cache, loading and training, before anything is downloaded or allocated."""

import math
from collections.abc import Iterator, Mapping

from macllm.quantization import Quantization
from macllm.spec import CacheSpec, KeyValues, ModelSpec, State, Tokens
from macllm.spec.memory import REWIND_TOKENS

KEPT_WINDOWS = 2  # of tokens that a sliding cache keeps, so that rewinding within a window is exact


def weight_bytes(spec: ModelSpec, formats: Mapping[str, Quantization | None], dense_bytes: int = 2) -> int:
    """Bytes of all weights; ``formats`` by canonical tensor name, dense tensors at ``dense_bytes`` each value."""
    total = 0
    for tensor in spec.tensors():
        stored = formats.get(tensor.name)
        matrices = math.prod(tensor.shape[:-2])
        total += stored.nbytes(tensor.size, matrices) if stored is not None else tensor.size * dense_bytes
    return total


def kv_bytes(spec: ModelSpec, tokens: int, value_bytes: int = 2, kv_bits: int | None = None) -> int:
    """Bytes of all caches at ``tokens`` tokens: a sliding window holds no more than its width, a state no more ever.

    ``kv_bits``: keys and values are packed in so many bits where they may be (None: plain).
    """
    if not tokens:
        return 0
    return sum(_in_view(cache, tokens, value_bytes, kv_bits) for cache in spec.caches)


def _in_view(cache: CacheSpec, tokens: int, value_bytes: int, kv_bits: int | None) -> int:
    match cache:
        case KeyValues():
            return cache.nbytes(tokens, value_bytes, kv_bits)
        case State():
            return cache.nbytes(value_bytes)
        case Tokens():
            return cache.nbytes(tokens)


def state_bytes(spec: ModelSpec, value_bytes: int = 2) -> int:
    """Bytes of the states of recurrent layers, which do not grow with the tokens."""
    return sum(cache.nbytes(value_bytes) for cache in spec.caches if isinstance(cache, State))


def held_bytes(
    spec: ModelSpec, tokens: int, value_bytes: int = 2, chunk: int = 512, kv_bits: int | None = None
) -> int:
    """Bytes that the caches allocate for ``tokens``: more than a step looks at, to rewind."""
    return sum(_held(cache, tokens, value_bytes, chunk, kv_bits) for cache in spec.caches)


def _held(cache: CacheSpec, tokens: int, value_bytes: int, chunk: int, kv_bits: int | None) -> int:
    if isinstance(cache, KeyValues):
        kept = KEPT_WINDOWS * cache.reach + chunk if cache.reach is not None else tokens
        return cache.nbytes_per_token(value_bytes, kv_bits) * min(tokens, kept)
    if isinstance(cache, Tokens):
        return cache.nbytes(tokens)
    # the state, up to three checkpoints, and the inputs since the oldest
    return 4 * cache.nbytes(value_bytes) + cache.logged * value_bytes * min(tokens, 3 * REWIND_TOKENS)


def kv_bytes_per_token(spec: ModelSpec, value_bytes: int = 2, kv_bits: int | None = None) -> int:
    """Bytes that one more token adds to the caches while every window still has room."""
    held = (cache for cache in spec.caches if isinstance(cache, KeyValues))
    return sum(cache.nbytes_per_token(value_bytes, kv_bits) for cache in held)


def adapter_tensors(spec: ModelSpec, rank: int) -> Iterator[int]:
    """Sizes of the LoRA factors on every matrix inside the layers, of a stack one a matrix."""
    for tensor in spec.tensors():
        if tensor.kind in ("matrix", "stack") and tensor.name.startswith("layers."):
            *count, outputs, inputs = tensor.shape
            yield rank * math.prod(count) * (outputs + inputs)


def working_bytes(
    spec: ModelSpec,
    weights: int,
    context: int,
    value_bytes: int = 2,
    chunk: int = 512,
    kv_bits: int | None = None,
) -> int:
    """Bytes to hold the weights, a cache of ``context`` tokens and one prefill chunk's activations."""
    widest = max(max(layer.working_values) for layer in spec.layers) + spec.dim * 4
    held = held_bytes(spec, context, value_bytes, chunk, kv_bits)
    return weights + held + chunk * widest * 4 + spec.vocab * 4
