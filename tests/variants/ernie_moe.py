"""ERNIE 4.5 with experts."""

from typing import Any

EXPERTS = {
    "moe_intermediate_size": 20,
    "moe_num_experts": 8,
    "moe_k": 3,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "use_bias": False,
}

VARIANTS: dict[str, Any] = {
    "ernie-moe": ("ernie4_5_moe", {**EXPERTS, "tie_word_embeddings": True}),
    "ernie-moe-published": (
        "ernie4_5_moe",
        {
            **EXPERTS,
            "use_rmsnorm": True,
            "moe_capacity": [8, 8, 8],
            "moe_use_aux_free": True,
            "moe_layer_interval": 1,
            "moe_layer_end_index": -1,
            "use_bias": False,
        },
    ),
    "ernie-moe-biases": (
        "ernie4_5_moe",
        {**EXPERTS, "use_bias": True, "tie_word_embeddings": False, "moe_num_shared_experts": 1},
    ),
    "ernie-moe-some-layers": (
        "ernie4_5_moe",
        {
            **EXPERTS,
            "num_hidden_layers": 6,
            "moe_layer_interval": 2,
            "moe_layer_end_index": 3,
            "moe_num_shared_experts": 0,
            "moe_num_experts": 64,
            "moe_k": 6,
            "tie_word_embeddings": False,
        },
    ),
}

BEYOND_MLX_LM = {
    "ernie-moe": "leaves out what corrects the choice",
    "ernie-moe-published": "leaves out what corrects the choice",
    "ernie-moe-biases": "no bias of the head",
    "ernie-moe-some-layers": "leaves out what corrects the choice",
}
