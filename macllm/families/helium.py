"""Helium."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("helium")
def helium(c: Config) -> ModelSpec:
    """Helium 1 (Kyutai 2025): Llama with a rope that turns neighbours."""
    c.where_missing(num_key_value_heads=20, head_dim=128, rope_theta=100_000.0)
    mixer = attention(c, bias=c.flag("attention_bias"), interleaved=True)
    layer = Layer(mixer, mlp(c, bias=c.flag("mlp_bias")), norm=rms_norm(c, default=1e-8))
    return model(c, [layer] * c.integer("num_hidden_layers"))
