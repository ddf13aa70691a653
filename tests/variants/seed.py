"""Seed-OSS."""

from typing import Any

VARIANTS: dict[str, Any] = {
    "seed_oss": ("seed_oss", {"head_dim": 16, "attention_bias": True, "rope_theta": 1e7}),
    "seed_oss-defaults": ("seed_oss", {"head_dim": None, "num_key_value_heads": 6}),
    "seed_oss-biases": (
        "seed_oss",
        {"head_dim": 12, "attention_out_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "seed_oss-out-bias": ("seed_oss", {"head_dim": 8, "attention_bias": False, "attention_out_bias": True}),
}
