"""Qwen with experts."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
FEW = {"moe_intermediate_size": 20, "num_experts": 8, "num_experts_per_tok": 3}
MANY = {"moe_intermediate_size": 12, "num_experts": 64, "num_experts_per_tok": 5}
SHARED = {"shared_expert_intermediate_size": 36}
WINDOW = {"use_sliding_window": True, "sliding_window": 8}

VARIANTS: dict[str, Any] = {
    "qwen2-moe": ("qwen2_moe", {**FEW, **SHARED, "qkv_bias": True, "norm_topk_prob": False}),
    "qwen2-moe-tied": (
        "qwen2_moe",
        {**MANY, **SHARED, "qkv_bias": False, "norm_topk_prob": True, "tie_word_embeddings": True},
    ),
    "qwen2-moe-some-layers": (
        "qwen2_moe",
        {**FEW, **SHARED, "decoder_sparse_step": 2, "num_hidden_layers": 4},
    ),
    "qwen2-moe-window": ("qwen2_moe", {**FEW, **SHARED, **WINDOW, "max_window_layers": 2}),
    "qwen2-moe-layer-types": (
        "qwen2_moe",
        {**FEW, **SHARED, **WINDOW, "layer_types": [FULL, SLIDING, SLIDING]},
    ),
    "qwen3-moe": ("qwen3_moe", {**FEW, "head_dim": 16, "norm_topk_prob": True}),
    "qwen3-moe-not-renormalized": ("qwen3_moe", {**FEW, "head_dim": 16, "attention_bias": True}),
    "qwen3-moe-many": ("qwen3_moe", {**MANY, "norm_topk_prob": True, "tie_word_embeddings": True}),
    "qwen3-moe-some-layers": (
        "qwen3_moe",
        {**FEW, "head_dim": 16, "norm_topk_prob": True, "mlp_only_layers": [1], "decoder_sparse_step": 1},
    ),
    "qwen3-moe-window": ("qwen3_moe", {**FEW, **WINDOW, "head_dim": 16, "norm_topk_prob": True}),
    "qwen3-moe-yarn": (  # as the model's page says to extend its context
        "qwen3_moe",
        {
            **FEW,
            "head_dim": 16,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        },
    ),
}

BEYOND_MLX_LM = {
    "qwen2-moe-tied": "biases whatever the config says",
    "qwen2-moe-some-layers": "experts in every layer",
    "qwen2-moe-window": "no window",
    "qwen2-moe-layer-types": "no window",
    "qwen3-moe-not-renormalized": "no biases",
    "qwen3-moe-window": "no window",
    "qwen3-moe-yarn": "no scaling of rope",
}
