"""Qwen3-Next and Qwen3.5, text."""

from typing import Any

_DELTA = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 10,
    "linear_conv_kernel_dim": 4,
    "num_hidden_layers": 4,
}
_EXPERTS = {
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 28,
    "num_experts": 8,
    "num_experts_per_tok": 3,
}
NEXT = {**_DELTA, **_EXPERTS, "rope_theta": 10_000_000, "partial_rotary_factor": 0.25}
LINEAR, FULL = "linear_attention", "full_attention"

VARIANTS: dict[str, Any] = {
    "qwen3-next": (
        "qwen3_next",
        {**NEXT, "attn_output_gate": True},
    ),
    "qwen3-next-tied": (
        "qwen3_next",
        {**NEXT, "tie_word_embeddings": True, "full_attention_interval": 2, "norm_topk_prob": False},
    ),
    "qwen3-next-some-dense": (
        "qwen3_next",
        {
            **NEXT,
            "mlp_only_layers": [3],
            "decoder_sparse_step": 2,
            "layer_types": [FULL, LINEAR, LINEAR, FULL],
        },
    ),
    "qwen3-next-many": (
        "qwen3_next",
        {
            **NEXT,
            "num_experts": 64,
            "partial_rotary_factor": 0.5,
            "rope_theta": 500.0,
            "attention_bias": True,
            "linear_num_key_heads": 3,
            "linear_num_value_heads": 3,
            "linear_conv_kernel_dim": 2,
        },
    ),
    "qwen3-5": ("qwen3_5_text", {**_DELTA, "mamba_ssm_dtype": "float32", "mtp_num_hidden_layers": 1}),
    "qwen3-5-tied": (
        "qwen3_5_text",
        {
            **_DELTA,
            "tie_word_embeddings": True,
            "layer_types": [LINEAR, FULL, LINEAR, LINEAR],
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 5,
            "linear_conv_kernel_dim": 3,
            "partial_rotary_factor": 1.0,
        },
    ),
    "qwen3-5-moe": ("qwen3_5_moe_text", {**_DELTA, **_EXPERTS}),
    "qwen3-5-moe-many": (
        "qwen3_5_moe_text",
        {**_DELTA, **_EXPERTS, "num_experts": 50, "attention_bias": True},
    ),
}

BEYOND_MLX_LM = {
    "qwen3-next-some-dense": "kinds of layers by their number only",
    **dict.fromkeys(
        ("qwen3-5", "qwen3-5-tied", "qwen3-5-moe", "qwen3-5-moe-many"), "no class of the text model's name"
    ),
}
