"""Phi 3.5 with experts."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_norm, model, moe
from macllm.families.config import Config
from macllm.families.mixtral import NAMES
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, SparseMixer


@family("phimoe")
def phimoe(c: Config) -> ModelSpec:
    """Phi-3.5-MoE (arXiv 2404.14219): LayerNorm, LongRoPE, two experts chosen by SparseMixer."""
    c.where_missing(num_key_value_heads=8, rope_theta=1_000_000.0)
    c.get("original_max_position_embeddings")
    c.get("input_jitter_noise")  # training only
    c.only("num_experts_per_tok", [2], 2)
    bias, norm = c.flag("attention_bias"), layer_norm(c, "rms_norm_eps")
    mixer = attention(c, bias=bias, out_bias=bias)
    if c.get("sliding_window") is not None:
        mixer = replace(mixer, window=c.integer("sliding_window"))
    channel = moe(
        c,
        SparseMixer,
        experts_key="num_local_experts",
        hidden_key="intermediate_size",
        jitter=c.number("router_jitter_noise", 0.01),
    )
    layers = [Layer(mixer, channel, norm=norm)] * c.integer("num_hidden_layers")
    return model(c, layers, table=NAMES, head_bias=c.flag("lm_head_bias"))
