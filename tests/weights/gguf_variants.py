"""Which of the tiny models GGUF can hold, what has to differ in some for that, and what it has no words for."""

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import gguf_conversions  # noqa: F401 - enters them
import pytest
from gguf_converter import CONVERSIONS
from tiny import Original, config_of, reference, variants, write_original

# Variants that no file can say, and the part of the spec that it would lose.
REFUSED = {
    "qwen2-window": "sliding_window",
    "qwen2-layer-types": "sliding_window",
    "qwen3-window": "sliding_window",
    "qwen3-yarn-tuned": "truncate",
    "gemma-untied": "bias",
    "gemma2-biases": "bias",
    "gemma2-scores-capped": "logit_cap",
    "gemma2-logits-capped": "softcap",
    "gemma3-biases": "bias",
    "smollm3-untied": "rope",
    "smollm3-layers": "rope",
    "smollm3-window": "sliding_window",
    "smollm3-turning-window": "sliding_window",
    "exaone4-no-positions": "rope",
    "gpt2-untied": "activation",
    "gpt2-scaled-by-depth": "activation",
    "gpt2-unscaled": "attention.scale",
    "gpt-neox-sequential": "activation",
    "gpt-neox-no-biases": "bias",
    "gpt-neox-linear-rope": "activation",
    "mpt-clipped": "attention.scale",
    "falcon-rw": "rope",
    "falcon-rw-rotary": "placement",
    "falcon-multi-query-sequential": "bias",
    "falcon-alibi-multi-query": "rope",
    "falcon-new-alibi": "rope",
    "qwen2-moe-tied": "expert_weights_norm",
    "qwen2-moe-some-layers": "leading_dense_block_count",
    "qwen2-moe-window": "sliding_window",
    "qwen2-moe-layer-types": "sliding_window",
    "qwen3-moe-not-renormalized": "expert_weights_norm",
    "qwen3-moe-some-layers": "channel",
    "qwen3-moe-window": "sliding_window",
    "qwen3-moe-yarn": "expert_weights_norm",
    "olmoe-grouped": "expert_weights_norm",
    "olmoe-clipped": "clamp_kqv",
    "falcon-mamba": "norm.eps",
    "mamba2-limits": "shortest_step",
    "lfm2-moe-many": "expert_weights_scale",
    "lfm2-moe-raw-weights": "expert_weights_norm",
    "cohere-multi-head-biases-untied": "bias",
    "cohere2-wide-window": "bias",
    "cohere2-pattern": "tied",
    "phimoe": "jitter",
    "phimoe-many": "jitter",
    "phimoe-short": "temperature",
    "ministral3-tied": "attention_factor",
    "phi-norms-tied": "qk_norm",
    "gemma3n-unscaled": "scaled_side",
    "granite-hybrid-untied": "shortest_step",
    "nemotron-h-latent": "feed_forward_length",
    "falcon-h1-tied": "logit_scale",
    "falcon-h1-biases": "norm_first",
    "gpt-oss-truncated-yarn": "truncate",
    "qwen3-next-tied": "expert_weights_norm",
    "qwen3-next-some-dense": "leading_dense_block_count",
    "deepseek-v2": "attention_factor",
    "deepseek-v2-lite-wide-latent": "attention_factor",
    "internlm3-dynamic": "scaling",
    "deepseek-v2-biases": "bias",
    "deepseek-v2-many": "attention_factor",
    "deepseek-v3-yarn": "attention_factor",
    "deepseek-v3-whole-queries": "interleaved",
    "deepseek-v3-one-group": "bias",
}
# What files can say and llama.cpp's converter does not write.
NOT_CONVERTED = {
    "gemma4-twelve-layers",  # the stand-in's rows of layer kinds are those of short models
    "mistral-window",  # llama.cpp lets all layers see everything
    "mistral-wide-window",
    "mixtral-window",
    "gemma-multi-query",  # it has no key for the base of Gemma 1
    "gemma2-layer-types",
    "gemma3-layer-types",
    "gemma3-pattern",
    "hunyuan_v1_dense",  # it knows one alpha
    "hunyuan_v1_dense-small-alpha",
    "gpt2-odd-heads",  # it takes four times the width for that of the feed-forward block
    "falcon-new-one-norm",
    "gpt-neox-whole-rope",  # it has no key for the base
    "mamba-odd",  # it knows one factor from states to channels
    "lfm2-biases",  # llama.cpp has none
    "cohere2-layer-types",  # it has no key for the pattern
    "ministral3-window",  # nor for the window
    "starcoder2-window",
    "phi",  # it takes all heads for key heads, and four times the width as well
    "phi-all-turns",
    "phi-multi-head",
    "gemma3n",  # it fills up the table of what layers get, which the model takes the first row of
    "gemma3n-active",
    "gemma3n-all-keys",
    "gemma4-keys-are-values",  # it leaves a cap out that is none, and llama.cpp then takes one
    "gpt-oss-layer-types",  # it has no key for the pattern
    "nemotron-h-words",  # it does not know the newer word for feed-forward layers
    "granite-hybrid-attention",  # nor for those that attend
    "glm-head-dim",  # it has no key for the width of heads
    "phi3-longrope-long",  # it divides by the logarithm of the first context
}
# What llama.cpp refuses to load, though its converter writes it.
NOT_RUN = {
    "ernie4_5-biases",  # it has no biases, or not these
    "hunyuan_v1_dense-biases",
    "qwen3-biases",
    "gemma4",  # the last layers with keys are of both kinds there
    "gemma4-untied",
    "gemma4-many-experts-shared",  # its GELU, which is rounded, turns close choices of experts over
    "seed_oss-biases",
    "seed_oss-out-bias",
    "olmo3-wide-window",
    "falcon-mamba-untied",
    "jamba-tied",  # it wants one on the convolution
    "mamba-untied",
    "mamba2-tied",
    "exaone4",  # heads are as wide together as the states
    "exaone4-pattern",
    "olmo2-biases",
    "gpt-neox-half-rope-tied",  # the output has to be stored
    "olmo2-tied",
    "minimax-m2-tied",
    "olmo3-full",
    "olmoe-many",
    "arcee-biases",
    "olmo-biases-tied",
    "stablelm-biases-tied",
    "starcoder2-no-biases-untied",
    "phimoe-window",
    "cohere-head-norms",  # it knows that of so many layers some have them
    "phi3-window",  # it leaves the window out
    "phi3-longrope-short",  # it decides by the length of its cache
    "phi3-longrope-old-name",
    "phimoe-as-released",  # it chooses experts otherwise
    "deepseek-v2-lite",  # it knows that from the number of layers
    "granite-hybrid-many",
    "nemotron-h-biases",
    "nemotron-h-groups",
    "qwen3-next",  # see FURTHER
    "qwen3-next-many",
    "qwen3-5",
    "qwen3-5-tied",
    "qwen3-5-moe",
    "qwen3-5-moe-many",
    "gemma3n-defaults",  # of fewer than 20 layers all have keys there
    "gemma3n-four-streams",
    "rwkv7",  # heads are as wide as its vectors there
    "rwkv7-tied",
    "rwkv7-hub",
    "deepseek-v2-grouped",  # a group is as good as its best two there
}
# Numbers that no key holds: readers take the width of a head, or the only value there is.
IMPLIED: dict[str, Any] = {
    "gemma2": lambda config: {"query_pre_attn_scalar": config["head_dim"]},
    "gemma3_text": lambda config: {"query_pre_attn_scalar": config["head_dim"]},
}
_TEMPERATURE = (1 + math.log(512 / 64) / math.log(64)) ** 0.5  # of a context eight times the first
_SECTIONS = {
    "rope_type": "default",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.25,
    "mrope_section": [1, 1, 0],  # pairs of a head that turn by the axes of an image
}
# Variants of our own: what they differ in from one of the tiny models.
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "deepseek-v2-grouped": (
        "deepseek-v2",
        {"rope_scaling": {**config_of("deepseek-v2")["rope_scaling"], "mscale_all_dim": 0.707}},
    ),
    # llama.cpp has keys and values of one width, and four states
    "qwen3-next-square": ("qwen3-next", {"linear_value_head_dim": 12}),
    "qwen3-5-square": ("qwen3-5", {"linear_value_head_dim": 12, "rope_parameters": _SECTIONS}),
    "qwen3-5-moe-square": ("qwen3-5-moe", {"linear_value_head_dim": 12, "rope_parameters": _SECTIONS}),
    "gemma4-keys-are-values-plain": (
        "gemma4-keys-are-values",
        {"attention_bias": False, "final_logit_softcapping": 30.0},
    ),
    "gemma4-two-shared": ("gemma4", {"num_kv_shared_layers": 2}),
    "gemma3n-four-streams": ("gemma3n", {"altup_num_inputs": 4, "vocab_size_per_layer_input": 99}),
    "phi3-longrope-long-first": (
        "phi3-longrope-short",
        {"original_max_position_embeddings": 400},
    ),
    "rwkv7-wide-heads": ("rwkv7", {"head_dim": 64, "hidden_size": 128, "norm_eps": 1e-5}),
    "phi-as-released": ("phi", {"num_key_value_heads": None, "intermediate_size": 4 * 48}),
    "phimoe-as-released": (
        "phimoe-short",
        {
            "router_jitter_noise": 0.01,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.1, 1.3, 1.9],
                "long_factor": [1.2, 2.5, 8.0, 30.0],
                "short_mscale": _TEMPERATURE,
                "long_mscale": _TEMPERATURE,
                "original_max_position_embeddings": 64,
            },
        },
    ),
}


def gguf_config(variant: str) -> dict[str, Any]:
    """The variant's config, with what files take as given."""
    base, changes = FURTHER.get(variant, (variant, {}))
    config = config_of(base) | changes
    implied = IMPLIED.get(config["model_type"])
    return config | (implied(config) if implied is not None else {})


def gguf_variants() -> list[str]:
    """The variants that a file can hold."""
    known = [name for name in (*variants(), *FURTHER) if gguf_config(name)["model_type"] in CONVERSIONS]
    return [name for name in known if name not in REFUSED]


def by_pace(names: list[str]) -> list[Any]:
    """Names as parameters: of each family one in ``make test``, the others in ``make test-all``."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(gguf_config(name)["model_type"], name)
    chosen = set(first.values())
    return [name if name in chosen else pytest.param(name, marks=pytest.mark.slow) for name in names]


def converted_variants() -> list[str]:
    """Those that llama.cpp's converter can write too."""
    return [name for name in gguf_variants() if name not in NOT_CONVERTED]


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="macllm-gguf-")  # lives as long as this process


@cache
def written(variant: str) -> Original:
    """The model as transformers wrote it. Do not change the folder."""
    config = gguf_config(variant)
    if variant in variants() and config == config_of(variant):
        return reference(variant)
    folder = Path(_scratch().name) / variant
    return write_original(config, folder)
