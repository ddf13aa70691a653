"""Ministral 8B."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"

VARIANTS: dict[str, Any] = {
    "ministral": (
        "ministral",
        {
            "head_dim": 16,
            "sliding_window": 8,
            "layer_types": [FULL, SLIDING, SLIDING],
            "rope_theta": 100000000.0,
        },
    ),
    "ministral-sliding": ("ministral", {"head_dim": 8, "sliding_window": 6, "tie_word_embeddings": True}),
    "ministral-wide-window": (
        "ministral",
        {"head_dim": 12, "sliding_window": 64, "num_key_value_heads": 3, "layer_types": [SLIDING, FULL, FULL]},
    ),
}
