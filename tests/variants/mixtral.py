"""Mixtral."""

from typing import Any

VARIANTS: dict[str, Any] = {
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "mixtral-window": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}),
    "mixtral-many": ("mixtral", {"num_local_experts": 64, "num_experts_per_tok": 3, "sliding_window": None}),
}

BEYOND_MLX_LM = {
    "mixtral-window": "no window",
}
