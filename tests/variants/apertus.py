"""Apertus."""

from typing import Any

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS: dict[str, Any] = {
    "apertus": (
        "apertus",
        {"rope_theta": 12000000.0, "rope_scaling": LLAMA3, "qk_norm": True, "post_norm": False},
    ),
    "apertus-biases": (
        "apertus",
        {"attention_bias": True, "tie_word_embeddings": True, "rope_theta": 5000.0, "rope_scaling": LLAMA3},
    ),
    "apertus-defaults": ("apertus", {"num_key_value_heads": None}),
}
