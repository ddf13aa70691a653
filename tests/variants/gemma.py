"""Gemma."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"

GEMMA2 = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 24}
CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 4.0}  # low enough to bend

VARIANTS: dict[str, Any] = {
    "gemma": ("gemma", {"head_dim": 16, "hidden_act": "gelu"}),
    "gemma-multi-query": ("gemma", {"head_dim": 8, "num_key_value_heads": 1, "rope_theta": 5000.0}),
    "gemma-untied": ("gemma", {"head_dim": 16, "tie_word_embeddings": False, "attention_bias": True}),
    "gemma2": ("gemma2", {**GEMMA2, **CAPS}),
    "gemma2-wide-window": ("gemma2", {**GEMMA2, **CAPS, "sliding_window": 64}),
    "gemma2-layer-types": ("gemma2", {**GEMMA2, **CAPS, "layer_types": [FULL, SLIDING, SLIDING]}),
    "gemma2-scores-capped": ("gemma2", {**GEMMA2, **CAPS, "final_logit_softcapping": None}),
    "gemma2-logits-capped": ("gemma2", {**GEMMA2, **CAPS, "attn_logit_softcapping": None}),
    "gemma2-biases": ("gemma2", {**GEMMA2, **CAPS, "attention_bias": True, "num_key_value_heads": 6}),
    "gemma3": ("gemma3_text", {"head_dim": 16, "sliding_window": 8, "num_hidden_layers": 7}),
    "gemma3-wide-window": (
        "gemma3_text",
        {"head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 24, "num_key_value_heads": 1},
    ),
    "gemma3-layer-types": (
        "gemma3_text",
        {"head_dim": 16, "sliding_window": 8, "layer_types": [FULL, SLIDING, SLIDING]},
    ),
    "gemma3-pattern": (
        "gemma3_text",
        {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 2, "rope_local_base_freq": 5000.0},
    ),
    "gemma3-linear-rope": (  # as from 4B on
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 8,
            "num_hidden_layers": 6,
            "rope_theta": 500000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "gemma3-biases": ("gemma3_text", {"head_dim": 16, "sliding_window": 8, "attention_bias": True}),
}
