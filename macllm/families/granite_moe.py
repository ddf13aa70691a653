"""Granite 3 with experts, and PowerMoE."""

from dataclasses import replace

from macllm.families.blocks import attention, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.granite_hybrid import sparse_names
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("granitemoe")
def granitemoe(c: Config) -> ModelSpec:
    """Granite 3's experts: Llama with them in all layers and muP's multipliers (arXiv 2203.03466)."""
    c.only("activation_function", ["silu"], "silu")
    c.get("router_jitter_noise")  # training only
    bias = c.flag("attention_bias")
    mixer = replace(attention(c, bias=bias, out_bias=bias), scale=c.number("attention_multiplier", 1.0))
    channel = moe(c, experts_key="num_local_experts", hidden_key="intermediate_size", score="softmax_chosen")
    layer = Layer(mixer, channel, norm=rms_norm(c), residual_scale=c.number("residual_multiplier", 1.0))
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        table=sparse_names(),
        embed_scale=c.number("embedding_multiplier", 1.0),
        logit_scale=1 / c.number("logits_scaling", 1.0),
    )
