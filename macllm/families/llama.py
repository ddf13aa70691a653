"""Llama and what shares its architecture: Llama 1 to 3, SmolLM2, Mistral."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("llama")
def llama(c: Config) -> ModelSpec:
    """Llama (Touvron et al. 2023)."""
    c.only("pretraining_tp", [1, 2, 4, 8], 1)  # how the original was sharded; the maths is the same
    c.only("rope_interleaved", [False], False)
    bias = c.flag("attention_bias")
    layer = Layer(attention(c, bias=bias, out_bias=bias), mlp(c, bias=c.flag("mlp_bias")), norm=rms_norm(c))
    return model(c, [layer] * c.integer("num_hidden_layers"))


@family("mistral")
def mistral(c: Config) -> ModelSpec:
    """Mistral 7B (Jiang et al. 2023): Llama, with a sliding window on every layer where the config sets one."""
    c.where_missing(sliding_window=4096, num_key_value_heads=8)
    window = c.get("sliding_window")
    mixer = replace(attention(c), window=c.integer("sliding_window") if window is not None else None)
    return model(c, [Layer(mixer, mlp(c), norm=rms_norm(c))] * c.integer("num_hidden_layers"))
