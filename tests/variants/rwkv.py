"""RWKV-7."""

from typing import Any

RWKV7 = {
    "model_type": "rwkv7",
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "head_dim": 16,
    # mlx-lm has an epsilon of 64e-5 for the norm of heads, whatever their width
    "norm_eps": 4e-5,
    "decay_low_rank_dim": 12,
    "a_low_rank_dim": 10,
    "v_low_rank_dim": 6,
    "gate_low_rank_dim": 14,
    "tie_word_embeddings": False,
    "max_position_embeddings": 512,
}

VARIANTS: dict[str, Any] = {
    "rwkv7": RWKV7,
    "rwkv7-tied": {**RWKV7, "tie_word_embeddings": True, "head_dim": 48, "norm_eps": 64e-5 / 48},
    "rwkv7-hub": {  # with all that fla writes
        **RWKV7,
        "head_dim": 8,
        "norm_eps": 8e-5,
        "attn": None,
        "attn_mode": "chunk",
        "fuse_norm": True,
        "fuse_cross_entropy": True,
        "hidden_act": "sqrelu",
        "hidden_ratio": 4.0,
        "norm_bias": True,
        "norm_first": True,
        "num_heads": 32,
        "value_dim": [48, 48, 48],
    },
}
