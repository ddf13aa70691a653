"""gpt-oss."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
# as its configs have it, for a shorter context
YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 24,
}
EXPERTS = {
    "intermediate_size": 20,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "head_dim": 16,
    "sliding_window": 8,
    "rope_theta": 150000.0,
    "rope_scaling": YARN,
}

VARIANTS: dict[str, Any] = {
    "gpt-oss": ("gpt_oss", EXPERTS),
    "gpt-oss-many": ("gpt_oss", {**EXPERTS, "num_local_experts": 64, "num_hidden_layers": 4}),
    "gpt-oss-wide-window": ("gpt_oss", {**EXPERTS, "sliding_window": 64, "num_key_value_heads": 6}),
    "gpt-oss-layer-types": (
        "gpt_oss",
        {
            **EXPERTS,
            "layer_types": [FULL, SLIDING, FULL],
            "attention_bias": False,
            "tie_word_embeddings": True,
        },
    ),
    "gpt-oss-truncated-yarn": (
        "gpt_oss",
        {**EXPERTS, "rope_scaling": {**YARN, "truncate": True, "factor": 32.0}},
    ),
}

BEYOND_MLX_LM = {
    "gpt-oss-layer-types": "biases whatever the config says, no tied head",
}
