"""Granite 4."""

from typing import Any

MAMBA, ATTENTION = "mamba", "attention"
GRANITE = {
    "num_hidden_layers": 4,
    "layer_types": [MAMBA, ATTENTION, MAMBA, MAMBA],
    "attention_bias": False,
    "attention_multiplier": 0.0625,
    "embedding_multiplier": 12,
    "residual_multiplier": 0.22,
    "logits_scaling": 6,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 56,
    "mamba_n_heads": 12,
    "mamba_d_head": 8,
    "mamba_d_state": 10,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "time_step_limit": [0.0, float("inf")],
    "position_embedding_type": "nope",
    "normalization_function": "rmsnorm",
    "init_method": "mup",
    "tie_word_embeddings": True,
}
DENSE = {**GRANITE, "num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": 80}

VARIANTS: dict[str, Any] = {
    "granite-hybrid": ("granitemoehybrid", GRANITE),
    "granite-hybrid-untied": (
        "granitemoehybrid",
        {
            **GRANITE,
            "tie_word_embeddings": False,
            "embedding_multiplier": 0.5,
            "residual_multiplier": 0.9,
            "position_embedding_type": "rope",
            "rope_theta": 5000.0,
            "mamba_n_groups": 3,
            "time_step_limit": [0.3, 0.9],
        },
    ),
    "granite-hybrid-many": (
        "granitemoehybrid",
        {
            **GRANITE,
            "num_local_experts": 64,
            "num_experts_per_tok": 6,
            "layer_types": [ATTENTION, MAMBA, ATTENTION, MAMBA],
            "attention_bias": True,
            "mamba_proj_bias": True,
            "mamba_conv_bias": False,
        },
    ),
    "granite-hybrid-dense": ("granitemoehybrid", DENSE),
    "granite-hybrid-attention": (
        "granitemoehybrid",
        {**DENSE, "layer_types": [ATTENTION] * 4, "position_embedding_type": "rope", "rope_theta": 1e6},
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "granite-hybrid-untied": "the groups of a gated norm are one",
}
