"""ERNIE 4.5, dense."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("ernie4_5")
def ernie4_5(c: Config) -> ModelSpec:
    """ERNIE 4.5, dense: Llama with a rope that turns neighbours."""
    c.where_missing(num_key_value_heads=2, head_dim=128, rope_theta=500_000.0)
    bias = c.flag("use_bias")
    mixer = attention(c, bias=bias, out_bias=bias, interleaved=True)
    layer = Layer(mixer, mlp(c, bias=bias), norm=rms_norm(c, default=1e-5))
    return model(c, [layer] * c.integer("num_hidden_layers"), tied=True)
