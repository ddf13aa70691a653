"""Helium."""

from typing import Any

HELIUM = {"head_dim": 8, "rms_norm_eps": 1e-8, "rope_theta": 100000.0}

VARIANTS: dict[str, Any] = {
    "helium": (
        "helium",
        {**HELIUM, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False},
    ),
    "helium-biases": (
        "helium",
        {
            **HELIUM,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "num_key_value_heads": 1,
        },
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "helium-biases": "no tied head",
}
