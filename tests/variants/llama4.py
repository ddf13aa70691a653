"""Llama 4, text."""

from typing import Any

CHUNKED, FULL = "chunked_attention", "full_attention"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SCOUT = {
    "intermediate_size": 20,
    "intermediate_size_mlp": 36,
    "num_hidden_layers": 5,
    "num_local_experts": 8,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "head_dim": 16,
    "attention_chunk_size": 8,
    "floor_scale": 4,
    "attn_scale": 0.5,
    "no_rope_layers": [],
    "rope_theta": 500000.0,
}
MAVERICK = {**SCOUT, "interleave_moe_layer_step": 2, "use_qk_norm": False, "num_local_experts": 64}

VARIANTS: dict[str, Any] = {
    "llama4-scout": ("llama4_text", {**SCOUT, "rope_scaling": LLAMA3}),
    "llama4-maverick": ("llama4_text", MAVERICK),
    "llama4-several": ("llama4_text", {**SCOUT, "num_experts_per_tok": 3, "attention_bias": True}),
    "llama4-wide-chunk": (
        "llama4_text",
        {**SCOUT, "attention_chunk_size": 64, "attn_temperature_tuning": False, "no_rope_layer_interval": 2},
    ),
    "llama4-layer-types": (
        "llama4_text",
        {
            **SCOUT,
            "num_hidden_layers": 3,
            "no_rope_layers": [1, 0, 1],
            "layer_types": [FULL, CHUNKED, CHUNKED],
            "tie_word_embeddings": True,
        },
    ),
    "mobilellm-r1": (
        "llama4_text",
        {
            **SCOUT,
            "num_hidden_layers": 3,
            "moe_layers": [],
            "interleave_moe_layer_step": 0,
            "num_local_experts": 0,
            "no_rope_layers": [1, 1, 1],
            "attn_temperature_tuning": False,
            "attention_chunk_size": 64,
            "tie_word_embeddings": True,
        },
    ),
}

BEYOND_MLX_LM = {
    "llama4-scout": "no experts",
    "llama4-maverick": "no experts",
    "llama4-several": "no experts",
    "llama4-wide-chunk": "no experts",
    "llama4-layer-types": "no experts",
}
