"""StableLM."""

from typing import Any

NO_RMS = {"rms_norm_eps": None}

VARIANTS: dict[str, Any] = {
    "stablelm": ("stablelm", NO_RMS),
    "stablelm-biases-tied": (
        "stablelm",
        {**NO_RMS, "use_qkv_bias": True, "tie_word_embeddings": True, "partial_rotary_factor": 0.5},
    ),
    "stablelm-parallel-head-norms": (  # as 12B
        "stablelm",
        {**NO_RMS, "use_parallel_residual": True, "qk_layernorm": True, "layer_norm_eps": 1e-3},
    ),
    "stablelm-head-norms": ("stablelm", {**NO_RMS, "qk_layernorm": True, "num_key_value_heads": 6}),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "stablelm-biases-tied": "embeddings are not tied",
}
