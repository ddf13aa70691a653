"""GLM 4.5 and later, with experts."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.deepseek import SHARED_NAMES, dense_first, further_tokens, routed_experts, shared_expert
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm


@family("glm4_moe")
def glm4_moe(c: Config) -> ModelSpec:
    """GLM-4.5 (arXiv 2508.06471): grouped queries of which half turns, DeepSeek V3's experts."""
    c.where_missing(num_key_value_heads=8)
    c.only("scoring_func", ["sigmoid"], "sigmoid")
    c.only("topk_method", ["noaux_tc"], "noaux_tc")
    norm = rms_norm(c, default=1e-5)
    qk_norm = QKNorm(norm) if c.flag("use_qk_norm") else None
    mixer = attention(c, bias=c.flag("attention_bias"), qk_norm=qk_norm, partial=0.5)
    experts = routed_experts(
        c,
        groups=c.integer("n_group", 1),
        top_groups=c.integer("topk_group", 1),
        group_score="best_two",
        score="sigmoid",
        correction=True,
        renormalize=c.flag("norm_topk_prob", True),
        weight_scale=c.number("routed_scaling_factor", 1.0),
        shared=shared_expert(c, 1),
    )
    layers = [Layer(mixer, channel, norm=norm) for channel in dense_first(c, 1, mlp(c), experts)]
    return model(c, layers, table=SHARED_NAMES, ignored=further_tokens(c))
