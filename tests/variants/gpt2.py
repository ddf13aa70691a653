"""GPT-2."""

from typing import Any

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 99,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 6,
    "n_positions": 512,
    "n_ctx": 512,
    "layer_norm_epsilon": 1e-4,
}

VARIANTS: dict[str, Any] = {
    "gpt2": GPT2,
    "gpt2-odd-heads": {**GPT2, "n_head": 16, "n_inner": 100},  # three values a head
    "gpt2-untied": {**GPT2, "tie_word_embeddings": False, "activation_function": "gelu"},
    "gpt2-scaled-by-depth": {
        **GPT2,
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
        "activation_function": "relu",
    },
    "gpt2-unscaled": {**GPT2, "scale_attn_weights": False, "activation_function": "silu"},
}
BEYOND_MLX_LM = {
    "gpt2-odd-heads": "one width of the feed-forward block only",
    "gpt2-untied": "tied only",
    "gpt2-scaled-by-depth": "one activation, no scale by depth",
    "gpt2-unscaled": "one activation, always scaled",
}
