"""Mamba 1 and 2, Falcon Mamba."""

from typing import Any

MAMBA = {
    "model_type": "mamba",
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "state_size": 6,
    "conv_kernel": 4,
    "time_step_rank": 3,
    "use_bias": False,
    "use_conv_bias": True,
}
MAMBA2 = {
    "model_type": "mamba2",
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_heads": 12,
    "head_dim": 8,
    "n_groups": 2,
    "state_size": 10,
    "conv_kernel": 4,
    "time_step_rank": 3,
    "time_step_limit": [0.0, float("inf")],
    "layer_norm_epsilon": 1e-5,
    "use_bias": False,
    "use_conv_bias": True,
    "tie_word_embeddings": False,
}

VARIANTS: dict[str, Any] = {
    "mamba": MAMBA,
    "mamba-untied": {**MAMBA, "tie_word_embeddings": False, "use_bias": True, "use_conv_bias": False},
    "mamba-odd": {**MAMBA, "time_step_rank": 5, "conv_kernel": 3, "expand": 1, "intermediate_size": 48},
    "mamba-hub": {
        **MAMBA,
        "d_inner": 96,
        "d_model": 48,
        "n_layer": 3,
        "rms_norm": True,
        "ssm_cfg": {},
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
        "time_step_rank": "auto",
        "layer_norm_epsilon": 1e-3,
    },
    "falcon-mamba": {**MAMBA, "model_type": "falcon_mamba", "mixer_rms_eps": 1e-2},
    "falcon-mamba-untied": {
        **MAMBA,
        "model_type": "falcon_mamba",
        "tie_word_embeddings": False,
        "use_bias": True,
    },
    "mamba2": MAMBA2,
    "mamba2-tied": {
        **MAMBA2,
        "n_groups": 1,
        "tie_word_embeddings": True,
        "use_bias": True,
        "use_conv_bias": False,
    },
    "mamba2-each-head": {**MAMBA2, "n_groups": 12, "conv_kernel": 2, "layer_norm_epsilon": 1e-3},
    "mamba2-limits": {**MAMBA2, "num_heads": 3, "head_dim": 32, "n_groups": 3, "time_step_limit": [0.5, 1.0]},
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "mamba2": "the groups of a gated norm are one",
    "mamba2-each-head": "the groups of a gated norm are one",
    "mamba2-limits": "the groups of a gated norm are one",
    "mamba-hub": "norms with an epsilon of 1e-5, whatever the config says",
}
