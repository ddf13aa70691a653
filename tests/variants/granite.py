"""Granite, dense."""

from typing import Any

MULTIPLIERS = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}

VARIANTS: dict[str, Any] = {
    "granite": ("granite", MULTIPLIERS),
    "granite-tied": ("granite", {**MULTIPLIERS, "tie_word_embeddings": True, "rope_theta": 10000000.0}),
    "granite-biases": (
        "granite",
        {**MULTIPLIERS, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": None},
    ),
    "granite-no-multipliers": ("granite", {}),
}
