"""Falcon-H1."""

from typing import Any

FALCON = {
    "attention_bias": False,
    "head_dim": 10,
    "attention_in_multiplier": 1.0,
    "attention_out_multiplier": 0.9375,
    "key_multiplier": 1.0,
    "embedding_multiplier": 5.656854249492381,
    "lm_head_multiplier": 0.0390625,
    "mlp_multipliers": [0.8838834764831844, 0.5859375],
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.23570226039551587,
    "ssm_multipliers": [0.3535533905932738, 0.25, 0.7, 0.5, 0.9],
    "mamba_d_ssm": 60,
    "mamba_n_heads": 6,
    "mamba_d_head": 10,
    "mamba_n_groups": 2,
    "mamba_d_state": 12,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "mamba_rms_norm": False,
    "mamba_norm_before_gate": False,
    "mamba_use_mlp": True,
    "mlp_bias": False,
    "mlp_expansion_factor": 8,
    "projectors_bias": False,
    "rope_theta": 1e11,
    "tie_word_embeddings": False,
}
BIASES = {"attention_bias": True, "mamba_proj_bias": True, "projectors_bias": True, "mlp_bias": True}

VARIANTS: dict[str, Any] = {
    "falcon-h1": ("falcon_h1", FALCON),
    "falcon-h1-tied": (
        "falcon_h1",
        {**FALCON, "tie_word_embeddings": True, "embedding_multiplier": 2.0, "lm_head_multiplier": 0.5},
    ),
    "falcon-h1-attention-factors": (
        "falcon_h1",
        {**FALCON, "attention_in_multiplier": 0.8, "key_multiplier": 0.390625, "mamba_rms_norm": True},
    ),
    "falcon-h1-biases": (
        "falcon_h1",
        {
            **FALCON,
            **BIASES,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": True,
            "mamba_conv_bias": False,
        },
    ),
    "falcon-h1-plain": (  # no factors at all
        "falcon_h1",
        {
            **FALCON,
            **{key: 1.0 for key in FALCON if key.endswith("_multiplier")},
            "mlp_multipliers": [1.0, 1.0],
            "ssm_multipliers": [1.0] * 5,
            "mamba_n_groups": 1,
            "mamba_d_ssm": 96,
            "mamba_d_head": 16,
            "rope_theta": 10000.0,
        },
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "falcon-h1-attention-factors": "no factor on keys, and one on values only",
    "falcon-h1-biases": "no factors on biases",
}
