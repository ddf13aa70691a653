"""Gemma."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"

VARIANTS: dict[str, Any] = {
    "gemma3": ("gemma3_text", {"head_dim": 16, "sliding_window": 8, "num_hidden_layers": 7}),
    "gemma3-wide-window": (
        "gemma3_text",
        {"head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 24, "num_key_value_heads": 1},
    ),
    "gemma3-layer-types": (
        "gemma3_text",
        {"head_dim": 16, "sliding_window": 8, "layer_types": [FULL, SLIDING, SLIDING]},
    ),
    "gemma3-pattern": (
        "gemma3_text",
        {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 2, "rope_local_base_freq": 5000.0},
    ),
    "gemma3-linear-rope": (  # as from 4B on
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 8,
            "num_hidden_layers": 6,
            "rope_theta": 500000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "gemma3-biases": ("gemma3_text", {"head_dim": 16, "sliding_window": 8, "attention_bias": True}),
}
