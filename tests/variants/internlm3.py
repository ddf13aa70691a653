"""InternLM 3."""

from typing import Any

DYNAMIC = {"rope_type": "dynamic", "factor": 6.0}

VARIANTS: dict[str, Any] = {
    "internlm3-dynamic": ("internlm3", {"head_dim": 8, "rope_theta": 50000000.0, "rope_scaling": DYNAMIC}),
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
