"""GLM with experts."""

from typing import Any

EXPERTS = {
    "moe_intermediate_size": 20,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "head_dim": 16,
    "partial_rotary_factor": 0.5,
    "n_group": 1,
    "topk_group": 1,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
}

VARIANTS: dict[str, Any] = {
    "glm4-moe": ("glm4_moe", {**EXPERTS, "attention_bias": True, "norm_topk_prob": True}),
    "glm4-moe-qk-norm": ("glm4_moe", {**EXPERTS, "use_qk_norm": True, "routed_scaling_factor": 2.5}),
    "glm4-moe-groups": (
        "glm4_moe",
        {**EXPERTS, "n_group": 4, "topk_group": 2, "norm_topk_prob": False, "first_k_dense_replace": 0},
    ),
    "glm4-moe-many": (
        "glm4_moe",
        {**EXPERTS, "n_routed_experts": 64, "n_shared_experts": 2, "partial_rotary_factor": 0.25},
    ),
}
