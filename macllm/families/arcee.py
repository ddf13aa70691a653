"""Arcee's foundation models."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("arcee")
def arcee(c: Config) -> ModelSpec:
    """AFM-4.5B (Arcee 2025): Llama with a squared relu that nothing gates."""
    bias = c.flag("attention_bias")
    channel = mlp(c, gated=False, expected="relu2", bias=c.flag("mlp_bias"))
    layer = Layer(attention(c, bias=bias, out_bias=bias), channel, norm=rms_norm(c, default=1e-5))
    return model(c, [layer] * c.integer("num_hidden_layers"))
