"""Which of the tiny models GGUF can hold, what has to differ in some for that, and what it has no words for."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import gguf_conversions  # noqa: F401 - enters them
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
    "deepseek-v3-yarn": "attention_factor",
    "deepseek-v3-whole-queries": "interleaved",
    "deepseek-v3-one-group": "bias",
}
# What files can say and llama.cpp's converter does not write.
NOT_CONVERTED = {
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
}
# What llama.cpp refuses to load, though its converter writes it.
NOT_RUN = {
    "ernie4_5-biases",  # it has no biases, or not these
    "hunyuan_v1_dense-biases",
    "qwen3-biases",
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
    "olmo3-full",
    "olmoe-many",
}
# Numbers that no key holds: readers take the width of a head, or the only value there is.
IMPLIED: dict[str, Any] = {
    "gemma2": lambda config: {"query_pre_attn_scalar": config["head_dim"]},
    "gemma3_text": lambda config: {"query_pre_attn_scalar": config["head_dim"]},
}


def gguf_config(variant: str) -> dict[str, Any]:
    """The variant's config, with what files take as given."""
    config = config_of(variant)
    implied = IMPLIED.get(config["model_type"])
    return config | (implied(config) if implied is not None else {})


def gguf_variants() -> list[str]:
    """The variants that a file can hold."""
    known = [name for name in variants() if config_of(name)["model_type"] in CONVERSIONS]
    return [name for name in known if name not in REFUSED]


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
    if config == config_of(variant):
        return reference(variant)
    folder = Path(_scratch().name) / variant
    return write_original(config, folder)
