"""Arcee's foundation models."""

from typing import Any

YARN = {
    "type": "yarn",
    "factor": 20.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
}

VARIANTS: dict[str, Any] = {
    "arcee": ("arcee", {"head_dim": 16, "rope_theta": 10000.0, "rope_scaling": YARN}),
    "arcee-biases": (
        "arcee",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": None},
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "arcee": "no class",
    "arcee-biases": "no class",
}
