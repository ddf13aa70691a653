"""InternLM 3."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("internlm3")
def internlm3(c: Config) -> ModelSpec:
    """InternLM 3 (2025): Llama, with a switch for the biases of q, k and v and one for all others."""
    c.where_missing(num_key_value_heads=2, head_dim=128)
    c.also_named(attention_bias="qkv_bias", mlp_bias="bias")
    bias = c.flag("mlp_bias")
    mixer = attention(c, bias=c.flag("attention_bias"), out_bias=bias)
    layer = Layer(mixer, mlp(c, bias=bias), norm=rms_norm(c, default=1e-5))
    return model(c, [layer] * c.integer("num_hidden_layers"))
