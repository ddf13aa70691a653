"""EXAONE 4."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

VARIANTS: dict[str, Any] = {
    "exaone4": (
        "exaone4",
        {
            "head_dim": 12,
            "num_hidden_layers": 5,
            "sliding_window": 8,
            "sliding_window_pattern": "LLLG",
            "layer_types": [SLIDING, SLIDING, SLIDING, FULL, FULL],
            "rope_theta": 1000000.0,
            "rope_scaling": LLAMA3,
        },
    ),
    "exaone4-pattern": (
        "exaone4",
        {"head_dim": 16, "sliding_window": 6, "sliding_window_pattern": 2, "num_key_value_heads": 3},
    ),
    "exaone4-full": (  # as the 1.2B
        "exaone4",
        {
            "head_dim": 8,
            "sliding_window": None,
            "sliding_window_pattern": None,
            "layer_types": [FULL] * 3,
            "tie_word_embeddings": True,
        },
    ),
    "exaone4-no-positions": ("exaone4", {"head_dim": 8, "sliding_window": 64, "layer_types": [FULL] * 3}),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "exaone4-no-positions": "positions where no layer slides",
}
