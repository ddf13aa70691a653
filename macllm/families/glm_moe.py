"""GLM 4.5 and later, with experts."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.deepseek import (
    LATENT_NAMES,
    SHARED_NAMES,
    corrected_experts,
    dense_first,
    further_tokens,
    key_value_names,
    latent_attention,
)
from macllm.families.registry import family
from macllm.spec import MLP, Layer, ModelSpec, MoE, QKNorm


@family("glm4_moe")
def glm4_moe(c: Config) -> ModelSpec:
    """GLM-4.5 (arXiv 2508.06471): grouped queries of which half turns, DeepSeek V3's experts."""
    c.where_missing(num_key_value_heads=8)
    c.only("scoring_func", ["sigmoid"], "sigmoid")
    c.only("topk_method", ["noaux_tc"], "noaux_tc")
    norm = rms_norm(c, default=1e-5)
    qk_norm = QKNorm(norm) if c.flag("use_qk_norm") else None
    mixer = attention(c, bias=c.flag("attention_bias"), qk_norm=qk_norm, partial=0.5)
    channels = dense_first(c, 1, mlp(c), corrected_experts(c))
    layers = [Layer(mixer, channel, norm=norm) for channel in channels]
    return model(c, layers, table=SHARED_NAMES, ignored=further_tokens(c))


@family("glm4_moe_lite")
def glm4_moe_lite(c: Config) -> ModelSpec:
    """GLM-4.7-Flash: latent attention and DeepSeek V3's experts."""
    c.where_missing(q_lora_rank=768, qk_nope_head_dim=192, v_head_dim=256)
    c.only("scoring_func", ["sigmoid"], "sigmoid")
    c.only("topk_method", ["noaux_tc"], "noaux_tc")
    norm, mixer = rms_norm(c, default=1e-5), latent_attention(c)
    channels = _by_kind(c, mlp(c), corrected_experts(c, weight_scale=1.8))
    layers = [Layer(mixer, channel, norm=norm) for channel in channels]
    table = LATENT_NAMES | SHARED_NAMES | key_value_names(mixer)
    return model(c, layers, table=table, ignored=further_tokens(c))


def _by_kind(c: Config, dense: MLP, experts: MoE) -> list[MLP | MoE]:
    """The channel block of each layer, by ``mlp_layer_types`` where it is there."""
    default = dense_first(c, 1, dense, experts)
    kinds = c.get("mlp_layer_types")
    if kinds is None:
        return default
    if not isinstance(kinds, list) or len(kinds) != len(default) or not set(kinds) <= {"dense", "sparse"}:
        raise c.unsupported("mlp_layer_types", kinds, f"{len(default)} of 'dense' and 'sparse'")
    return [experts if kind == "sparse" else dense for kind in kinds]
