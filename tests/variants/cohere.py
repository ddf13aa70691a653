"""Cohere."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
NO_RMS = {"rms_norm_eps": None}

VARIANTS: dict[str, Any] = {
    "cohere": ("cohere", NO_RMS),
    "cohere-head-norms": ("cohere", {**NO_RMS, "use_qk_norm": True, "layer_norm_eps": 1e-3}),
    "cohere-multi-head-biases-untied": (
        "cohere",
        {
            **NO_RMS,
            "num_key_value_heads": None,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "logit_scale": 0.25,
            "rope_theta": 8000000.0,
        },
    ),
    "cohere2": ("cohere2", {**NO_RMS, "sliding_window": 8, "num_hidden_layers": 5}),
    "cohere2-wide-window": (
        "cohere2",
        {**NO_RMS, "sliding_window": 64, "attention_bias": True, "rope_theta": 50000, "logit_scale": 0.25},
    ),
    "cohere2-pattern": (
        "cohere2",
        {**NO_RMS, "sliding_window": 5, "sliding_window_pattern": 2, "tie_word_embeddings": False},
    ),
    "cohere2-layer-types": (
        "cohere2",
        {**NO_RMS, "sliding_window": 8, "layer_types": [FULL, SLIDING, FULL], "num_key_value_heads": 1},
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "cohere-multi-head-biases-untied": "embeddings are tied",
    "cohere2-wide-window": "one layer in four is full",
    "cohere2-pattern": "embeddings are tied",
    "cohere2-layer-types": "one layer in four is full",
}
