"""OLMo 2 and 3."""

from typing import Any

YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "attention_factor": 1.2079441541679836,
    "beta_fast": 32,
    "beta_slow": 1,
}
SLIDING, FULL = "sliding_attention", "full_attention"
THETA = {"rope_theta": 500000.0}

VARIANTS: dict[str, Any] = {
    "olmo2": ("olmo2", THETA),
    "olmo2-tied": ("olmo2", {"tie_word_embeddings": True, "num_key_value_heads": None}),
    "olmo2-biases": ("olmo2", {"attention_bias": True, "head_dim": 12, "num_key_value_heads": 1}),
    "olmo3": ("olmo3", {**THETA, "sliding_window": 8, "num_hidden_layers": 5}),
    "olmo3-yarn": (
        "olmo3",
        {**THETA, "sliding_window": 8, "layer_types": [SLIDING, FULL, SLIDING], "rope_scaling": YARN},
    ),
    "olmo3-wide-window": ("olmo3", {**THETA, "sliding_window": 64, "attention_bias": True}),
    "olmo3-full": ("olmo3", {**THETA, "layer_types": [FULL] * 3, "tie_word_embeddings": True}),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "olmo3-wide-window": "layers of both kinds",
    "olmo3-full": "layers of both kinds",
}
