"""Jamba."""

from typing import Any

JAMBA = {
    "num_hidden_layers": 5,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "mamba_d_state": 6,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "tie_word_embeddings": False,
}

VARIANTS: dict[str, Any] = {
    "jamba": ("jamba", JAMBA),
    "jamba-tied": (
        "jamba",
        {**JAMBA, "tie_word_embeddings": True, "mamba_proj_bias": True, "mamba_conv_bias": False},
    ),
    "jamba-dense": (
        "jamba",
        {**JAMBA, "num_experts": 1, "num_experts_per_tok": 1, "mamba_dt_rank": 7, "num_key_value_heads": 6},
    ),
    "jamba-many": (
        "jamba",
        {
            **JAMBA,
            "num_experts": 64,
            "num_experts_per_tok": 5,
            "attn_layer_offset": 2,
            "expert_layer_period": 3,
            "expert_layer_offset": 0,
            "mamba_d_conv": 2,
            "mamba_dt_rank": "auto",
        },
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "jamba": "the weights of the chosen experts sum to one",
    "jamba-tied": "the weights of the chosen experts sum to one",
    "jamba-many": "the weights of the chosen experts sum to one",
}
