"""Granite 3, dense."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("granite")
def granite(c: Config) -> ModelSpec:
    """Granite: Llama with constants on embeddings, scores, residuals and logits (muP, Yang et al. 2022)."""
    bias = c.flag("attention_bias")
    mixer = replace(attention(c, bias=bias, out_bias=bias), scale=c.number("attention_multiplier", 1.0))
    channel = mlp(c, bias=c.flag("mlp_bias"))
    layer = Layer(mixer, channel, norm=rms_norm(c), residual_scale=c.number("residual_multiplier", 1.0))
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        embed_scale=c.number("embedding_multiplier", 1.0),
        logit_scale=1 / c.number("logits_scaling", 1.0),
    )
