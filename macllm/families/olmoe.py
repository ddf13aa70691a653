"""OLMoE."""

from dataclasses import replace

from macllm.families.blocks import attention, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm


@family("olmoe")
def olmoe(c: Config) -> ModelSpec:
    """OLMoE (Muennighoff et al. 2024): many small experts, q and k each normalized over all heads."""
    norm, bias = rms_norm(c, default=1e-5), c.flag("attention_bias")
    clip = c.number("clip_qkv") if c.get("clip_qkv") is not None else None
    mixer = replace(attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(norm, "all")), clip=clip)
    channel = moe(c, hidden_key="intermediate_size", renormalize=c.flag("norm_topk_prob"))
    return model(c, [Layer(mixer, channel, norm=norm)] * c.integer("num_hidden_layers"))
