"""Granite with experts."""

from typing import Any

SMALL = {"intermediate_size": 20, "num_local_experts": 8, "num_experts_per_tok": 3}
EXPERTS = {
    **SMALL,
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.25,
    "residual_multiplier": 0.22,
    "logits_scaling": 6.0,
}

VARIANTS: dict[str, Any] = {
    "granite-moe": ("granitemoe", {**EXPERTS, "tie_word_embeddings": True}),
    "granite-moe-biases": ("granitemoe", {**EXPERTS, "attention_bias": True, "hidden_act": "silu"}),
    "granite-moe-plain": (
        "granitemoe",
        {**SMALL, "num_local_experts": 64, "num_experts_per_tok": 8, "attention_multiplier": 0.35},
    ),
    "power-moe": ("granitemoe", {**EXPERTS, "activation_function": "silu", "router_jitter_noise": 0.0}),
}
