"""Llama and Mistral."""

from typing import Any

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

VARIANTS: dict[str, Any] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": ("llama", {"head_dim": 16}),
    "llama-multi-head": ("llama", {"num_key_value_heads": 6}),
    "llama-multi-query": ("llama", {"num_key_value_heads": 1}),
    "llama3-rope": ("llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA3}),
    "llama-linear-rope": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "llama-old-linear-rope": ("llama", {"rope_scaling": {"type": "linear", "factor": 3.0}}),
    "llama-null-keys": ("llama", {"head_dim": None, "num_key_value_heads": None, "rope_scaling": None}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "mistral-wide-window": ("mistral", {"sliding_window": 64}),
}

BEYOND_MLX_LM = {
    "mistral-window": "no windows",
}
