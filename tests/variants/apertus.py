"""Apertus."""

from typing import Any

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
OWN = {"qk_norm": True, "post_norm": False, "mlp_bias": False}

VARIANTS: dict[str, Any] = {
    "apertus": (
        "apertus",
        {**OWN, "rope_theta": 12000000.0, "rope_scaling": LLAMA3},
    ),
    "apertus-biases": (
        "apertus",
        {
            **OWN,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "rope_theta": 5000.0,
            "rope_scaling": LLAMA3,
        },
    ),
    "apertus-defaults": ("apertus", {**OWN, "num_key_value_heads": None}),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {"apertus-biases": "no biases"}
