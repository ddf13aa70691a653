"""StarCoder2."""

from typing import Any

NO_RMS = {"rms_norm_eps": None}

VARIANTS: dict[str, Any] = {
    "starcoder2": ("starcoder2", NO_RMS),
    "starcoder2-window": ("starcoder2", {**NO_RMS, "sliding_window": 8, "norm_epsilon": 1e-3}),
    "starcoder2-no-biases-untied": (
        "starcoder2",
        {**NO_RMS, "use_bias": False, "tie_word_embeddings": False, "rope_theta": 999999.4420358813},
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "starcoder2": "another GELU",
    "starcoder2-window": "no window",
    "starcoder2-no-biases-untied": "biases everywhere",
}
