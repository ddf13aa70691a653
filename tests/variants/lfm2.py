"""LFM2."""

from typing import Any

_BASE = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "norm_eps": 1e-3,
    "conv_L_cache": 3,
    "layer_types": ["conv", "conv", "full_attention", "conv"],
}
# the older form of a repository's config
DENSE = {
    **{key: value for key, value in _BASE.items() if key != "layer_types"},
    "model_type": "lfm2",
    "full_attn_idxs": [1, 3],
    "rope_theta": 5000.0,
    "block_dim": 48,
    "conv_dim": 48,
    "conv_dim_out": 48,
    "num_heads": 6,
    "block_norm_eps": 1e-3,
    "block_use_swiglu": True,
    "use_pos_enc": True,
    "block_mlp_init_scale": 1.0,
    "block_ff_dim": 100,
    "block_multiple_of": 16,
    "block_ffn_dim_multiplier": 1.3,
    "block_auto_adjust_ff_dim": True,
}
MOE = {
    **_BASE,
    "model_type": "lfm2_moe",
    "intermediate_size": 80,
    "moe_intermediate_size": 20,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_dense_layers": 1,
}

VARIANTS: dict[str, Any] = {
    "lfm2": DENSE,
    "lfm2-as-stated": {**DENSE, "block_auto_adjust_ff_dim": False, "tie_embedding": False},
    "lfm2-biases": {
        **DENSE,
        "conv_bias": True,
        "conv_L_cache": 4,
        "full_attn_idxs": None,
        "layer_types": ["conv", "full_attention", "conv", "conv"],
    },
    "lfm2-two-seen": {**DENSE, "conv_L_cache": 2, "full_attn_idxs": [0], "num_key_value_heads": 6},
    "lfm2-moe": MOE,
    "lfm2-moe-many": {**MOE, "num_experts": 64, "use_expert_bias": False, "routed_scaling_factor": 1.5},
    "lfm2-moe-raw-weights": {**MOE, "norm_topk_prob": False, "conv_bias": True, "tie_embedding": False},
}

BEYOND_MLX_LM = dict.fromkeys(("lfm2-as-stated", "lfm2-moe-raw-weights"), "heads are tied")
