"""SmolLM3."""

from typing import Any

TOKENS = {"pad_token_id": 2}  # the default is beyond the tiny vocabulary

VARIANTS: dict[str, Any] = {
    "smollm3": ("smollm3", {**TOKENS, "num_hidden_layers": 5}),
    "smollm3-untied": (
        "smollm3",
        {**TOKENS, "tie_word_embeddings": False, "no_rope_layer_interval": 2, "rope_theta": 5000000.0},
    ),
    "smollm3-layers": (
        "smollm3",
        {**TOKENS, "no_rope_layers": [0, 1, 1], "attention_bias": True, "mlp_bias": True},
    ),
    "smollm3-window": (
        "smollm3",
        {
            **TOKENS,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 8,
            "num_key_value_heads": 6,
        },
    ),
    "smollm3-turning-window": (
        "smollm3",
        {
            **TOKENS,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        },
    ),
}
