"""OLMo Hybrid. Heads of keys and values are alike: transformers saves their convolution in equal parts."""

from typing import Any

EQUAL = {
    "pad_token_id": None,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_value_heads": 6,
}

VARIANTS: dict[str, Any] = {
    "olmo-hybrid": ("olmo_hybrid", {**EQUAL, "num_hidden_layers": 4, "rope_theta": None}),
    "olmo-hybrid-turning": ("olmo_hybrid", {**EQUAL, "attention_bias": True, "rope_theta": 500.0}),
    "olmo-hybrid-heads": (
        "olmo_hybrid",
        {
            **EQUAL,
            "linear_num_key_heads": 3,
            "linear_num_value_heads": 3,
            "linear_conv_kernel_dim": 3,
            "linear_allow_neg_eigval": False,
            "layer_types": ["full_attention", "linear_attention", "linear_attention"],
            "tie_word_embeddings": True,
        },
    ),
}
