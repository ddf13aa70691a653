"""dots.llm1."""

from typing import Any

EXPERTS = {
    "moe_intermediate_size": 20,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
    "n_group": 1,
    "topk_group": 1,
    "head_dim": 16,
    "rope_theta": 10000000.0,
}

VARIANTS: dict[str, Any] = {
    "dots1": (
        "dots1",
        {
            **EXPERTS,
            "norm_topk_prob": True,
            "scoring_func": "noaux_tc",
            "sliding_window": None,
            "max_window_layers": 3,
        },
    ),
    "dots1-window": (
        "dots1",
        {**EXPERTS, "sliding_window": 8, "max_window_layers": 1, "norm_topk_prob": False},
    ),
    "dots1-groups": (
        "dots1",
        {
            **EXPERTS,
            "n_routed_experts": 64,
            "n_group": 8,
            "topk_group": 2,
            "first_k_dense_replace": 0,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "sliding_window": None,
            "norm_topk_prob": True,
        },
    ),
}

BEYOND_MLX_LM = {
    "dots1-window": "no window",
    "dots1-groups": "no biases",
}
