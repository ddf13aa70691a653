"""MiMo."""

from typing import Any

MIMO = {
    "head_dim": 8,
    "attention_bias": True,
    "num_nextn_predict_layers": 1,
    "rope_theta": 640000.0,
    "use_mrope": False,
    "use_sliding_window": False,
    "sliding_window": 32768,
    "max_window_layers": 28,
}

VARIANTS: dict[str, Any] = {
    "mimo": ("mimo", MIMO),
    "mimo-tied": ("mimo", {**MIMO, "tie_word_embeddings": True}),
}
