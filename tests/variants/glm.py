"""GLM, dense."""

from typing import Any

SMALL = {"pad_token_id": None, "head_dim": 8}  # the default is beyond the tiny vocabulary

VARIANTS: dict[str, Any] = {
    "glm": ("glm", SMALL),
    "glm-all-turns-tied": (  # as GLM-Edge
        "glm",
        {**SMALL, "partial_rotary_factor": 1.0, "attention_bias": False, "tie_word_embeddings": True},
    ),
    "glm-head-dim": ("glm", {**SMALL, "head_dim": 12, "num_key_value_heads": 3, "rope_theta": 5000000.0}),
    "glm4": ("glm4", SMALL),
    "glm4-no-biases-tied": (
        "glm4",
        {**SMALL, "attention_bias": False, "tie_word_embeddings": True, "partial_rotary_factor": 0.25},
    ),
    "glm4-yarn": (  # its temperature is of the half that turns
        "glm4",
        {
            **SMALL,
            "head_dim": 16,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        },
    ),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "glm": "all of a head turns",
    "glm-head-dim": "all of a head turns",
    "glm4-no-biases-tied": "embeddings are not tied",
    "glm4-yarn": "no scaled rope",
}
