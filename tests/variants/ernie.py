"""ERNIE 4.5, dense."""

from typing import Any

VARIANTS: dict[str, Any] = {
    "ernie4_5": (
        "ernie4_5",
        {"head_dim": 16, "use_bias": False, "tie_word_embeddings": True, "rope_theta": 500000.0},
    ),
    "ernie4_5-defaults": ("ernie4_5", {"head_dim": None}),
    "ernie4_5-biases": (
        "ernie4_5",
        {"head_dim": 10, "use_bias": True, "tie_word_embeddings": False, "rope_theta": 1000.0},
    ),
    "ernie4_5-linear-rope": (
        "ernie4_5",
        {"head_dim": 8, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "ernie4_5-linear-rope": "no scaling of the rope",
}
