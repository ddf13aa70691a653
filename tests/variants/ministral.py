"""Ministral 3."""

from typing import Any

YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 7,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.3,
}
SMALL = {"head_dim": 8}
SLIDING, FULL = "sliding_attention", "full_attention"

VARIANTS: dict[str, Any] = {
    "ministral3": ("ministral3", {**SMALL, "rope_theta": 1000000.0, "rope_scaling": YARN}),
    "ministral3-tied": (
        "ministral3",
        {
            "head_dim": 16,
            "rope_scaling": {**YARN, "mscale": 0.5, "original_max_position_embeddings": 11},
            "tie_word_embeddings": True,
        },
    ),
    "ministral3-window": ("ministral3", {**SMALL, "rope_scaling": YARN, "sliding_window": 9}),
    "ministral3-settings-left-out": ("ministral3", SMALL),
    "ministral": (
        "ministral",
        {
            "head_dim": 16,
            "sliding_window": 8,
            "layer_types": [FULL, SLIDING, SLIDING],
            "rope_theta": 100000000.0,
        },
    ),
    "ministral-sliding": ("ministral", {**SMALL, "sliding_window": 6, "tie_word_embeddings": True}),
    "ministral-wide-window": (
        "ministral",
        {
            "head_dim": 12,
            "sliding_window": 64,
            "num_key_value_heads": 3,
            "layer_types": [SLIDING, FULL, FULL],
        },
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "ministral3-window": "a window only where layer_types says so",
    "ministral": "no class",
    "ministral-sliding": "no class",
    "ministral-wide-window": "no class",
}
