"""Qwen."""

from typing import Any

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
YARN_TUNED = {**YARN, "beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 1.3, "truncate": False}
SLIDING, FULL = "sliding_attention", "full_attention"

VARIANTS: dict[str, Any] = {
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1000000.0}),
    "qwen2-yarn": ("qwen2", {"rope_scaling": YARN}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen2-layer-types": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "layer_types": [SLIDING, FULL, SLIDING]},
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3-tied": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen3-yarn": ("qwen3", {"head_dim": 16, "rope_scaling": YARN}),
    "qwen3-yarn-tuned": ("qwen3", {"head_dim": 16, "rope_scaling": YARN_TUNED}),
    "qwen3-biases": ("qwen3", {"head_dim": 16, "attention_bias": True}),
    "qwen3-window": (
        "qwen3",
        {"head_dim": 16, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    ),
}

BEYOND_MLX_LM = {
    "qwen2-window": "no windows",
    "qwen2-layer-types": "no windows",
    "qwen3-yarn-tuned": "always truncates",
    "qwen3-biases": "no biases",
    "qwen3-window": "no windows",
}
