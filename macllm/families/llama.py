"""Llama and what shares its architecture: Llama 1 to 3, SmolLM2, Mistral, Ministral 3."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QueryScale


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


@family("ministral3")
def ministral3(c: Config) -> ModelSpec:
    """Ministral 3: Mistral with YaRN, and queries that grow with their position."""
    c.where_missing(num_key_value_heads=8, head_dim=128, rope_parameters=_MINISTRAL)
    c.get("layer_types")  # carried along: a window is one of all layers
    mixer, window, settings = attention(c, rope=None), c.get("sliding_window"), c.rope_settings()
    beta = "llama_4_scaling_beta"
    mixer = replace(
        mixer,
        rope=c.rope(mixer.head_dim, base=c.number("rope_theta", 10_000.0), beside=(beta,)),
        window=c.integer("sliding_window") if window is not None else None,
        query_scale=QueryScale(settings.number(beta), c.original_context(settings)),
    )
    layer = Layer(mixer, mlp(c), norm=rms_norm(c, default=1e-5))
    return model(c, [layer] * c.integer("num_hidden_layers"))


# What a config without any settings means.
_MINISTRAL = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}
