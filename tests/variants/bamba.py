"""Bamba."""

from typing import Any

BAMBA = {
    "num_hidden_layers": 4,
    "attn_layer_indices": [1],
    "mamba_n_heads": 6,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 10,
    "head_dim": 16,
    "attn_rotary_emb": 8,
}

VARIANTS: dict[str, Any] = {
    "bamba": ("bamba", BAMBA),
    "bamba-tied": (
        "bamba",
        {
            **BAMBA,
            "attn_layer_indices": [0, 3],
            "mamba_n_groups": 1,
            "attention_bias": True,
            "mlp_bias": True,
            "mamba_proj_bias": True,
            "mamba_conv_bias": False,
            "rope_theta": 500.0,
            "tie_word_embeddings": True,
        },
    ),
    "bamba-narrow": ("bamba", {**BAMBA, "attn_layer_indices": [2], "mamba_d_conv": 3, "mamba_n_groups": 6}),
}
BEYOND_MLX_LM = dict.fromkeys(VARIANTS, "it has no class for it")
