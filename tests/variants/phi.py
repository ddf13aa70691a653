"""Phi."""

from typing import Any

LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.05, 1.2, 1.4],
    "long_factor": [1.3, 2.0, 5.5, 40.0],
}
OLD_LONGROPE = {**LONGROPE, "rope_type": "su", "original_max_position_embeddings": 64}
# the last dimensions of a head do not turn
PARTIAL = {**LONGROPE, "short_factor": [1.0, 1.1, 1.3], "long_factor": [1.5, 4.0, 31.0]}

LAYER_NORM = {"rms_norm_eps": None}
SMALL = {"pad_token_id": None}  # the default is beyond the tiny vocabulary

VARIANTS: dict[str, Any] = {
    "phi": ("phi", LAYER_NORM),
    "phi-multi-head": (
        "phi",
        {**LAYER_NORM, "num_key_value_heads": None, "partial_rotary_factor": 0.25, "layer_norm_eps": 1e-3},
    ),
    "phi-norms-tied": (
        "phi",
        {**LAYER_NORM, "qk_layernorm": True, "tie_word_embeddings": True, "rope_theta": 500.0},
    ),
    "phi-all-turns": ("phi", {**LAYER_NORM, "partial_rotary_factor": 1.0}),
    "phi3": ("phi3", SMALL),
    "phi3-window": ("phi3", {**SMALL, "sliding_window": 7, "num_key_value_heads": 6}),
    "phi3-endless-window": ("phi3", {**SMALL, "sliding_window": 512}),
    "phi3-partial-tied": ("phi3", {**SMALL, "partial_rotary_factor": 0.75, "tie_word_embeddings": True}),
    "phi3-longrope-short": (
        "phi3",
        {**SMALL, "rope_scaling": LONGROPE, "original_max_position_embeddings": 64},
    ),
    "phi3-longrope-old-name": (
        "phi3",
        {**SMALL, "rope_scaling": OLD_LONGROPE, "original_max_position_embeddings": 64},
    ),
    # at the first position all rotations are the same, so that all are long
    "phi3-longrope-long": (
        "phi3",
        {
            **SMALL,
            "rope_scaling": {**PARTIAL, "attention_factor": 1.3},
            "original_max_position_embeddings": 1,
            "partial_rotary_factor": 0.75,
        },
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "phi-norms-tied": "no norms on q and k, embeddings are not tied",
    "phi3-window": "no window",
    "phi3-longrope-short": "the long factors always",
    "phi3-longrope-old-name": "the long factors always",
    "phi3-longrope-long": "divides by the context's logarithm",
}
