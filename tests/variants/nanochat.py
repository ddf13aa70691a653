"""nanochat."""

from typing import Any

VARIANTS: dict[str, Any] = {
    "nanochat": ("nanochat", {"num_key_value_heads": None, "rope_theta": 10000.0}),
    "nanochat-grouped": ("nanochat", {"rope_theta": 500.0, "final_logit_softcapping": 3.0, "head_dim": 12}),
    "nanochat-biases": ("nanochat", {"attention_bias": True, "tie_word_embeddings": True}),
    "nanochat-uncapped": ("nanochat", {"final_logit_softcapping": None}),
}

# what mlx-lm's class has, or lacks
BEYOND_MLX_LM = {
    "nanochat-grouped": "heads as wide as the states are, logits capped at 15",
    "nanochat-biases": "no biases",
    "nanochat-uncapped": "logits capped at 15",
}
