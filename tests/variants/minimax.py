"""MiniMax M2."""

from typing import Any

EXPERTS = {
    "intermediate_size": 20,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "head_dim": 16,
    "rotary_dim": 8,
    "rope_theta": 5000000.0,
}
PUBLISHED = {  # what the repository's config says beside that
    "attn_type_list": [1, 1, 1],
    "layernorm_full_attention_beta": 1.0,
    "layernorm_linear_attention_beta": 1.0,
    "layernorm_mlp_beta": 1.0,
    "mlp_intermediate_size": 48,
    "mtp_transformer_layers": 1,
    "num_mtp_modules": 3,
    "qk_norm_type": "per_layer",
    "scoring_func": "sigmoid",
    "shared_intermediate_size": 0,
    "shared_moe_mode": "sigmoid",
    "use_mtp": True,
    "use_qk_norm": True,
    "use_routing_bias": True,
}

VARIANTS: dict[str, Any] = {
    "minimax-m2": ("minimax_m2", EXPERTS),
    "minimax-m2-published": ("minimax_m2", {**EXPERTS, **PUBLISHED}),
    "minimax-m2-first-name": ("minimax", {**EXPERTS, **PUBLISHED}),
    "minimax-m2-many": ("minimax_m2", {**EXPERTS, "num_local_experts": 64, "rotary_dim": 16}),
    "minimax-m2-tied": ("minimax_m2", {**EXPERTS, "num_key_value_heads": 6, "tie_word_embeddings": True}),
}
