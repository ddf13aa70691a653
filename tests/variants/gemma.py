"""Gemma."""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"

GEMMA2 = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 24}
GEMMA3N = {
    "head_dim": 16,
    "sliding_window": 8,
    "num_hidden_layers": 7,
    "num_kv_shared_layers": 3,
    "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL, SLIDING, FULL],
    "vocab_size_per_layer_input": 90,
    "hidden_size_per_layer_input": 12,
    "laurel_rank": 6,
    "altup_num_inputs": 3,
    "final_logit_softcapping": 4.0,
    "activation_sparsity_pattern": [0.8, 0.8, 0.0, 0.5, 0.0, 0.9, 0.0],
    "intermediate_size": [80, 80, 64, 96, 80, 80, 80],
}
GEMMA4 = {
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 8,
    "num_hidden_layers": 7,
    "num_kv_shared_layers": 3,
    "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL, SLIDING, FULL],
    "vocab_size_per_layer_input": 99,
    "hidden_size_per_layer_input": 12,
    "final_logit_softcapping": 4.0,
    "use_double_wide_mlp": True,
}
GEMMA4_MOE = {
    **GEMMA4,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 3,
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 20,
    "use_double_wide_mlp": False,
    "use_bidirectional_attention": "vision",
}
GEMMA4_ROPES = {
    FULL: {"rope_type": "proportional", "rope_theta": 5000.0, "partial_rotary_factor": 0.5},
    SLIDING: {"rope_type": "default", "rope_theta": 500.0},
}
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
    "gemma3n": ("gemma3n_text", GEMMA3N),
    "gemma3n-active": ("gemma3n_text", {**GEMMA3N, "altup_active_idx": 1, "altup_num_inputs": 2}),
    "gemma3n-unscaled": (
        "gemma3n_text",
        {**GEMMA3N, "altup_correct_scale": False, "attention_bias": True, "vocab_size_per_layer_input": 99},
    ),
    "gemma3n-all-keys": ("gemma3n_text", {**GEMMA3N, "num_kv_shared_layers": 0, "num_key_value_heads": 1}),
    "gemma3n-defaults": (
        "gemma3n_text",
        {
            "num_hidden_layers": 12,
            "num_kv_shared_layers": 6,
            "sliding_window": 8,
            "head_dim": 8,
            "hidden_size_per_layer_input": 8,
            "rope_theta": 5000.0,
            "rope_local_base_freq": 500.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
    ),
    "gemma4": ("gemma4_text", GEMMA4),
    "gemma4-experts": ("gemma4_text", GEMMA4_MOE),
    "gemma4-many-experts-shared": (
        "gemma4_text",
        {**GEMMA4_MOE, "num_experts": 64, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 12},
    ),
    "gemma4-keys-are-values": (  # as 31B
        "gemma4_text",
        {
            **GEMMA4,
            "attention_k_eq_v": True,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "final_logit_softcapping": None,
            "attention_bias": True,
            "rope_parameters": GEMMA4_ROPES,
        },
    ),
    "gemma4-twelve-layers": (  # whose numbers have two digits
        "gemma4_text",
        {"head_dim": 8, "global_head_dim": 16, "sliding_window": 8, "num_hidden_layers": 12}
        | {"vocab_size_per_layer_input": 99, "hidden_size_per_layer_input": 8},
    ),
    "gemma4-untied": ("gemma4_text", {**GEMMA4, "tie_word_embeddings": False, "use_double_wide_mlp": False}),
}
_ROUNDED = "the embedding's scale is rounded to bfloat16"
_BIASES = "no biases"
BEYOND_MLX_LM = {
    "gemma": "exact GELU",
    "gemma-multi-query": "exact GELU",
    "gemma-untied": "tied and without biases only",
    "gemma2": "no windows",
    "gemma2-layer-types": "no windows",
    "gemma2-scores-capped": "always both caps",
    "gemma2-logits-capped": "always both caps",
    "gemma2-biases": _BIASES,
    "gemma3": _ROUNDED,
    "gemma3-wide-window": "no model without a full layer",
    "gemma3-layer-types": "no model whose last layers slide",
    "gemma3-pattern": _ROUNDED,
    "gemma3-linear-rope": _ROUNDED,
    "gemma3-biases": _BIASES,
    **dict.fromkeys((name for name in VARIANTS if name.startswith("gemma3n")), "a multimodal config only"),
    "gemma4-keys-are-values": _BIASES,
}
