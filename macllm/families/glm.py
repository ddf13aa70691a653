"""GLM 4, dense."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import fused, renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, NormPlacement

_LAYER = "model.layers.{i}."
_GLM = fused(f"{_LAYER}mlp.gate_up_proj", "layers.{i}.channel.gate", "layers.{i}.channel.up")
_GLM4 = _GLM | renamed(
    {
        "layers.{i}.mixer_post_norm": f"{_LAYER}post_self_attn_layernorm",
        "layers.{i}.channel_norm": f"{_LAYER}post_attention_layernorm",
        "layers.{i}.channel_post_norm": f"{_LAYER}post_mlp_layernorm",
    }
)


@family("glm")
def glm(c: Config) -> ModelSpec:
    """GLM-4 9B and GLM-Edge: Llama whose neighbours turn in half of each head, biases on q, k and v."""
    return model(c, _layers(c, "pre"), table=_GLM)


@family("glm4")
def glm4(c: Config) -> ModelSpec:
    """GLM-4 0414: the same with a norm after each block too."""
    c.only("rope_traditional", [True], True)
    return model(c, _layers(c, "sandwich"), table=_GLM4)


def _layers(c: Config, placement: NormPlacement) -> list[Layer]:
    c.where_missing(head_dim=128, num_key_value_heads=2)
    mixer = attention(c, bias=c.flag("attention_bias", True), partial=0.5, interleaved=True)
    layer = Layer(mixer, mlp(c), placement, rms_norm(c, default=1.5625e-7))
    return [layer] * c.integer("num_hidden_layers")
