"""InternLM 3."""

from typing import Any

VARIANTS: dict[str, Any] = {
    "internlm3": ("internlm3", {"head_dim": 8, "bias": False, "qkv_bias": False, "rope_theta": 50000000.0}),
    "internlm3-biases": (
        "internlm3",
        {
            "head_dim": 8,
            "bias": True,
            "qkv_bias": True,
            "tie_word_embeddings": True,
            "num_key_value_heads": None,
        },
    ),
}
