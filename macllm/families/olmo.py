"""OLMo, the first."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, Norm


@family("olmo")
def olmo(c: Config) -> ModelSpec:
    """OLMo (Groeneveld et al. 2024): Llama with a LayerNorm that has no weights; 7B bounds q, k and v."""
    bias, clip = c.flag("attention_bias"), c.get("clip_qkv")
    mixer = attention(c, bias=bias, out_bias=bias)
    if clip is not None:
        mixer = replace(mixer, clip=c.number("clip_qkv"))
    layer = Layer(mixer, mlp(c), norm=Norm("layer", 1e-5, weight=False))
    return model(c, [layer] * c.integer("num_hidden_layers"))
