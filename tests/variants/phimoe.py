"""Phi 3.5 with experts."""

from typing import Any

EXPERTS = {"intermediate_size": 20, "num_local_experts": 8, "num_experts_per_tok": 2}
BIASES = {"attention_bias": True, "lm_head_bias": True}
LONG = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.9],
    "long_factor": [1.2, 2.5, 8.0, 30.0],
    "short_mscale": 1.2,
    "long_mscale": 1.4,
    "original_max_position_embeddings": 64,
}

VARIANTS: dict[str, Any] = {
    "phimoe": ("phimoe", {**EXPERTS, **BIASES, "sliding_window": 512, "router_jitter_noise": 0.2}),
    "phimoe-window": ("phimoe", {**EXPERTS, "sliding_window": 8}),
    "phimoe-many": (
        "phimoe",
        {**EXPERTS, **BIASES, "num_local_experts": 64, "router_jitter_noise": 0.6, "rope_theta": 10000.0},
    ),
    "phimoe-short": (
        "phimoe",
        {**EXPERTS, **BIASES, "rope_scaling": LONG, "original_max_position_embeddings": 64},
    ),
}

BEYOND_MLX_LM = {
    "phimoe-window": "biases whatever the config says",
    "phimoe-short": "the long factors for short sequences too",
}
