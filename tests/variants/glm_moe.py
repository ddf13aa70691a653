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

LITE = {
    **EXPERTS,
    "num_key_value_heads": 6,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "partial_rotary_factor": 1.0,
    "topk_method": "noaux_tc",
    "routed_scaling_factor": 1.8,
    "num_nextn_predict_layers": 1,
}
del LITE["head_dim"]

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
    "glm4-moe-lite": ("glm4_moe_lite", LITE),
    "glm4-moe-lite-kinds": (
        "glm4_moe_lite",
        {
            **LITE,
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "q_lora_rank": None,
            "n_shared_experts": 2,
        },
    ),
    "glm4-moe-lite-many": (
        "glm4_moe_lite",
        {**LITE, "n_routed_experts": 64, "n_group": 4, "topk_group": 2, "tie_word_embeddings": True},
    ),
}

BEYOND_MLX_LM = {
    "glm4-moe-lite-kinds": "the first layers without experts, no others",
    "glm4-moe-lite-many": "no tied head",
}
