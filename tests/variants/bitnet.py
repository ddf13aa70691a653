"""BitNet b1.58, without its rounding (see ``tests/weights/test_ternary.py``)."""

from typing import Any

VARIANTS: dict[str, Any] = {
    "bitnet": ("bitnet", {"hidden_act": "relu2", "rope_theta": 500000.0}),
    "bitnet-tied": (
        "bitnet",
        {"tie_word_embeddings": True, "num_key_value_heads": None, "rope_theta": 100.0},
    ),
    "bitnet-biases": ("bitnet", {"attention_bias": True, "head_dim": 8, "num_key_value_heads": 3}),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "bitnet": "only packed ternary weights, on Metal",
    "bitnet-tied": "only packed ternary weights, on Metal",
    "bitnet-biases": "only packed ternary weights, on Metal",
}
