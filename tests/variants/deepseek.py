"""DeepSeek V2 and V3."""

from typing import Any

LATENT = {
    "num_key_value_heads": 6,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "moe_intermediate_size": 20,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "n_shared_experts": 2,
}
V3 = {**LATENT, "n_group": 4, "topk_group": 2}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 1.0,
}
V2 = {**LATENT, "moe_layer_freq": 1, "scoring_func": "softmax", "rope_scaling": YARN}

VARIANTS: dict[str, Any] = {
    "deepseek-v2-lite": (
        "deepseek_v2",
        {
            **V2,
            "q_lora_rank": None,
            "topk_method": "greedy",
            "rope_scaling": {**YARN, "mscale_all_dim": 0.707},
        },
    ),
    "deepseek-v2-lite-wide-latent": (  # as wide as it takes to be packed
        "deepseek_v2",
        {**V2, "q_lora_rank": None, "kv_lora_rank": 64, "qk_nope_head_dim": 16, "v_head_dim": 32},
    ),
    "deepseek-v2": (
        "deepseek_v2",
        {
            **V2,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 16.0,
            "first_k_dense_replace": 0,
        },
    ),
    "deepseek-v2-biases": (
        "deepseek_v2",
        {
            **V2,
            "rope_scaling": None,
            "attention_bias": True,
            "mlp_bias": True,
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 1,
        },
    ),
    "deepseek-v2-many": (
        "deepseek_v2",
        {
            **V2,
            "n_routed_experts": 64,
            "num_experts_per_tok": 6,
            "topk_method": "group_limited_greedy",
            "n_group": 8,
            "topk_group": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
    ),
    "kimi-k2": ("kimi_k2", {**V3, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.827}),
    "deepseek-v3-many": (
        "deepseek_v3",
        {
            **V3,
            "n_routed_experts": 64,
            "num_experts_per_tok": 8,
            "n_group": 8,
            "topk_group": 3,
            "norm_topk_prob": False,
        },
    ),
    "deepseek-v3": ("deepseek_v3", V3),
    "deepseek-v3-yarn": ("deepseek_v3", {**V3, "rope_scaling": YARN}),
    "deepseek-v3-whole-queries": ("deepseek_v3", {**V3, "q_lora_rank": None, "rope_interleave": False}),
    "deepseek-v3-one-group": ("deepseek_v3", {**V3, "n_group": 1, "topk_group": 1, "attention_bias": True}),
}

BEYOND_MLX_LM = {
    "deepseek-v2-biases": "needs a scaling of rope",
    "deepseek-v2-many": "no tied head",
    "deepseek-v3-whole-queries": "turns neighbours, whatever the config says",
}
