"""OLMoE."""

from typing import Any

EXPERTS = {"intermediate_size": 20, "num_experts": 8, "num_experts_per_tok": 3, "num_key_value_heads": 6}

VARIANTS: dict[str, Any] = {
    "olmoe": ("olmoe", EXPERTS),
    "olmoe-grouped": ("olmoe", {**EXPERTS, "num_key_value_heads": 2, "norm_topk_prob": True}),
    "olmoe-clipped": ("olmoe", {**EXPERTS, "clip_qkv": 0.8, "attention_bias": True}),
    "olmoe-many": (
        "olmoe",
        {**EXPERTS, "num_experts": 64, "num_experts_per_tok": 8, "tie_word_embeddings": True},
    ),
}

BEYOND_MLX_LM = {
    "olmoe-clipped": "does not clip",
}
