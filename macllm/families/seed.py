"""Seed-OSS."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("seed_oss")
def seed_oss(c: Config) -> ModelSpec:
    """Seed-OSS: Llama with biases on q, k and v, and heads that are wider together than the states."""
    c.where_missing(num_key_value_heads=8, head_dim=128)
    for key in ("residual_dropout", "pretraining_tp"):
        c.get(key)  # training only
    mixer = attention(c, bias=c.flag("attention_bias", True), out_bias=c.flag("attention_out_bias"))
    layer = Layer(mixer, mlp(c, bias=c.flag("mlp_bias")), norm=rms_norm(c))
    return model(c, [layer] * c.integer("num_hidden_layers"))
