"""Hunyuan V1, dense."""

from typing import Any

ALPHA = {
    "alpha": 1000.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "type": "dynamic",
}

VARIANTS: dict[str, Any] = {
    "hunyuan_v1_dense": (
        "hunyuan_v1_dense",
        {"head_dim": 16, "rope_theta": 10000.0, "rope_scaling": ALPHA, "tie_word_embeddings": True},
    ),
    "hunyuan_v1_dense-biases": (
        "hunyuan_v1_dense",
        {"head_dim": 12, "attention_bias": True, "num_key_value_heads": None},
    ),
    "hunyuan_v1_dense-small-alpha": (
        "hunyuan_v1_dense",
        {"head_dim": 8, "rope_scaling": {**ALPHA, "alpha": 3.5}, "rope_theta": 500.0},
    ),
    "hunyuan_v1_dense-yarn": (
        "hunyuan_v1_dense",
        {
            "head_dim": 8,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        },
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "hunyuan_v1_dense-yarn": "no other scaling of the rope",
}
