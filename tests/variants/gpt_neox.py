"""GPT-NeoX."""

from typing import Any

NEOX = {
    "model_type": "gpt_neox",
    "vocab_size": 99,
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-4,
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000,
}

VARIANTS: dict[str, Any] = {
    "gpt-neox": NEOX,
    "gpt-neox-sequential": {**NEOX, "use_parallel_residual": False, "hidden_act": "gelu_new"},
    "gpt-neox-whole-rope": {**NEOX, "rotary_pct": 1.0, "rotary_emb_base": 5000},
    "gpt-neox-half-rope-tied": {**NEOX, "rotary_pct": 0.5, "tie_word_embeddings": True},
    "gpt-neox-no-biases": {**NEOX, "attention_bias": False, "num_attention_heads": 3},
    "gpt-neox-linear-rope": {**NEOX, "rope_scaling": {"type": "linear", "factor": 2.0}, "hidden_act": "relu"},
}
BEYOND_MLX_LM = {
    "gpt-neox": "GELU always by its tanh form",
    "gpt-neox-whole-rope": "GELU always by its tanh form",
    "gpt-neox-half-rope-tied": "untied only",
    "gpt-neox-no-biases": "with biases only",
    "gpt-neox-linear-rope": "no scaling of rope, one activation",
}
