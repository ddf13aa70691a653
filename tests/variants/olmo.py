"""OLMo, the first."""

from typing import Any

NO_RMS = {"rms_norm_eps": None}

VARIANTS: dict[str, Any] = {
    "olmo": ("olmo", {**NO_RMS, "num_key_value_heads": None}),
    "olmo-clipped": ("olmo", {**NO_RMS, "clip_qkv": 0.8}),
    "olmo-biases-tied": ("olmo", {**NO_RMS, "attention_bias": True, "tie_word_embeddings": True}),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "olmo": "another form of checkpoint",
    "olmo-clipped": "another form of checkpoint",
    "olmo-biases-tied": "another form of checkpoint",
}
