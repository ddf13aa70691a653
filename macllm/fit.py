"""Whether a model fits a machine: the bytes it needs, the longest context that fits, and a sentence. No mlx.

From the spec where a config is at hand; else from sizes alone, which is an estimate and says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from macllm import sizes
from macllm.quantization import Quantization
from macllm.spec import ModelSpec
from macllm.units import size

Verdict: TypeAlias = Literal["comfortable", "tight", "too big", "unknown"]
Needed: TypeAlias = Callable[[int], int]  # tokens of context to bytes

LEAST_CONTEXT = 1024  # tokens; a model that has room for fewer does not fit
CONTEXT_AT_LOAD = 4096  # tokens of cache that must fit beside the weights: the engine refuses less
COMFORTABLE_CONTEXT = 8192  # tokens of a conversation that is not cut short
COMFORTABLE_SHARE = 0.85  # of the limit: what macOS lets a model take is shared with every other program
# What macOS lets a GPU take (Metal's recommendedMaxWorkingSetSize): 5.3 of 8 GiB, 21.3 of 32, 48 of 64. Some
# newer systems allow more; the engine's process asks the machine itself.
SMALL_SHARE, LARGE_SHARE, LARGEST_SMALL_GB = 2 / 3, 3 / 4, 32
PRECISIONS: Mapping[str, Quantization | None] = {
    "16": None,
    "8": Quantization(8, 64),
    "4": Quantization(4, 64),
}
# Where only the size of the files is known: cache and working memory of a usual model at a usual length.
ASSUMED_SHARE, ASSUMED_LEAST = 0.12, 200_000_000
# Parts of config keys that stand for a mixer with another cache than keys and values of every token.
_NOT_PLAIN = ("kv_lora", "ssm", "mamba", "linear_", "conv_", "block_type", "hybrid", "attn_type", "rwkv")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")


@dataclass(frozen=True)
class Fit:
    """A model against a limit. ``needed_bytes`` are those at the context asked for, or the model's if shorter.

    ``longest_context`` is in tokens, 0 where the model does not fit and None where it is not known.
    """

    verdict: Verdict
    needed_bytes: int | None
    longest_context: int | None
    sentence: str


UNKNOWN = Fit(
    "unknown", None, None, "Whether it fits is not known: nothing says how much memory models may take."
)
UNKNOWN_SIZE = Fit("unknown", None, None, "Whether it fits is not known: its size is not stated.")


def fit_of_spec(
    spec: ModelSpec,
    weight_bytes: int,
    limit: int | None,
    *,
    context: int = COMFORTABLE_CONTEXT,
    value_bytes: int = 2,
) -> Fit:
    """A model whose spec is known; ``value_bytes`` of a cached value, ``limit`` what models may take (None: ?)."""
    if not limit:
        return UNKNOWN
    need = partial(_working, spec, weight_bytes, value_bytes)
    return _judged(need, limit, spec.max_context, context)


def fit_of_sizes(
    weight_bytes: int | None,
    limit: int | None,
    *,
    kv_bytes: Needed | None = None,
    max_context: int | None = None,
    context: int = COMFORTABLE_CONTEXT,
) -> Fit:
    """A model of which only sizes are known. ``kv_bytes`` gives the cache's bytes at a number of tokens."""
    if weight_bytes is None:
        return UNKNOWN_SIZE
    if not limit:
        return UNKNOWN
    if kv_bytes is not None and max_context is not None:
        return _judged(partial(_sum, weight_bytes, kv_bytes), limit, max_context, context)
    needed = weight_bytes + max(int(weight_bytes * ASSUMED_SHARE), ASSUMED_LEAST)
    verdict = _verdict(needed, needed, limit)
    return Fit(verdict, needed, None if verdict != "too big" else 0, _estimate(verdict, needed, limit))


def usable_bytes(memory_gb: int) -> int:
    """What a model may take of a Mac's memory."""
    share = SMALL_SHARE if memory_gb <= LARGEST_SMALL_GB else LARGE_SHARE
    return int(memory_gb * 2**30 * share)


def longest_context(need: Needed, usable: int, longest: int) -> int:
    """The most tokens, up to ``longest``, whose bytes are within ``usable``: by bisection, since bytes only grow.

    0 where there is no room for LEAST_CONTEXT.
    """
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if need(middle) <= usable else (low, middle - 1)
    return low if low >= min(LEAST_CONTEXT, longest) else 0


def bytes_by_precision(spec: ModelSpec) -> dict[str, int]:
    """Bytes of the weights in each of PRECISIONS: what converting an unquantized model comes to."""
    quantizable = [tensor.name for tensor in spec.tensors() if tensor.quantizable]
    return {
        key: sizes.weight_bytes(spec, dict.fromkeys(quantizable, packing))
        for key, packing in PRECISIONS.items()
    }


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with the keys of its language model, which a multimodal one keeps in a part of their own."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, Mapping) else config


def stated_context(config: Mapping[str, Any]) -> int | None:
    """Tokens of context by the config of whatever architecture; None where it does not say."""
    return stated_integer(text_config(config), *_CONTEXT_KEYS)


def plain_kv_bytes(config: Mapping[str, Any]) -> Needed | None:
    """The cache, in 16 bits, of a model whose layers are all attention; None where that is not certain.

    For architectures without a family of their own; ``config`` is that of the text model. A window counts where
    ``layer_types`` says which layers have it; else it is left out, which is never too little.
    """
    if any(part in key for key in config for part in _NOT_PLAIN):
        return None
    layers, heads = stated_integer(config, "num_hidden_layers"), stated_integer(config, "num_attention_heads")
    width, window = stated_integer(config, "hidden_size"), stated_integer(config, "sliding_window")
    if layers is None or heads is None or width is None:
        return None
    kinds = config.get("layer_types")
    kinds = kinds if isinstance(kinds, list) else []
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        return None
    sliding = kinds.count("sliding_attention") if window is not None else 0
    kv_heads = stated_integer(config, "num_key_value_heads") or heads
    per_token = 2 * kv_heads * (stated_integer(config, "head_dim") or width // heads) * 2
    return lambda tokens: per_token * ((layers - sliding) * tokens + sliding * min(tokens, window or tokens))


def stated_integer(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of ``keys`` that holds a whole number above zero."""
    found = (config.get(key) for key in keys)
    return next((value for value in found if type(value) is int and value > 0), None)


def _working(spec: ModelSpec, weight_bytes: int, value_bytes: int, tokens: int) -> int:
    return sizes.working_bytes(spec, weight_bytes, tokens, value_bytes)


def _sum(weight_bytes: int, kv_bytes: Needed, tokens: int) -> int:
    return weight_bytes + kv_bytes(tokens)


def _judged(need: Needed, limit: int, longest: int, context: int) -> Fit:
    tokens = min(context, longest)
    needed, at_load = need(tokens), need(min(CONTEXT_AT_LOAD, longest))
    verdict = _verdict(needed, at_load, limit)
    if verdict == "too big":
        sentence = f"Too big: it needs {size(at_load)}, and models may take {size(limit)} here."
        return Fit(verdict, needed, 0, sentence)
    room = longest_context(need, limit, longest)
    if verdict == "comfortable":
        sentence = (
            f"Fits: {size(needed)} of the {size(limit)} that models may take; room for {room:,} tokens."
        )
    else:
        sentence = (
            f"Tight: it takes most of the {size(limit)} that models may take; room for {room:,} tokens."
        )
    return Fit(verdict, needed, room, sentence)


def _verdict(needed: int, at_load: int, limit: int) -> Verdict:
    if at_load > limit:
        return "too big"
    return "comfortable" if needed <= COMFORTABLE_SHARE * limit else "tight"


def _estimate(verdict: Verdict, needed: int, limit: int) -> str:
    if verdict == "too big":
        amounts = f"Too big: it needs about {size(needed)}, and models may take {size(limit)} here"
    else:
        word = "Fits" if verdict == "comfortable" else "Tight"
        amounts = f"{word}: about {size(needed)} of the {size(limit)} that models may take"
    return f"{amounts}; judged by its size alone."
