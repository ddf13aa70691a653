"""A mixture of experts written out in numpy, one token and one expert after the other."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from macllm.spec import MLP, MoE


def mixture(spec: MoE, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Rows (T, D) through the block whose tensors are named ``x.``."""
    return np.stack([_token(spec, weights, row) for row in rows.astype(np.float64)])


def _token(spec: MoE, weights: Mapping[str, np.ndarray], row: np.ndarray) -> np.ndarray:
    logits = weights["x.router.weight"] @ row + weights.get("x.router.bias", 0.0)
    total = np.zeros(spec.dim)
    for expert, weight in routed(spec, logits, weights.get("x.correction")):
        own = {name: values[expert] for name, values in weights.items() if name.startswith("x.experts.")}
        total += weight * _feed_forward(spec, own, "x.experts", row)
    if spec.shared is not None:
        gate = _sigmoid(weights["x.shared_gate.weight"] @ row) if spec.shared_gated else 1.0
        total += gate * _feed_forward(spec.shared, weights, "x.shared", row)
    return total


def routed(spec: MoE, logits: np.ndarray, correction: np.ndarray | None) -> list[tuple[int, float]]:
    """The experts that one token's logits choose, and what each weighs."""
    scores = {
        "softmax": lambda: np.exp(logits) / np.exp(logits).sum(),
        "softmax_chosen": lambda: logits,
        "sigmoid": lambda: 1 / (1 + np.exp(-logits)),
    }[spec.score]()
    choice = scores if correction is None else scores + correction
    size = spec.experts // spec.groups

    def merit(group: int) -> float:
        best = sorted(choice[group * size : (group + 1) * size], reverse=True)
        return best[0] if spec.group_score == "best" else best[0] + best[1]

    groups = sorted(range(spec.groups), key=merit, reverse=True)[: spec.top_groups]
    left = [expert for expert in range(spec.experts) if expert // size in groups]
    chosen = sorted(left, key=lambda expert: choice[expert], reverse=True)[: spec.top_k]
    weights = [float(scores[expert]) for expert in chosen]
    if spec.score == "softmax_chosen":
        weights = [math.exp(weight) for weight in weights]
    if spec.renormalize or spec.score == "softmax_chosen":
        weights = [weight / sum(weights) for weight in weights]
    return [(expert, weight * spec.weight_scale) for expert, weight in zip(chosen, weights, strict=True)]


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}


def _feed_forward(
    spec: MLP | MoE, weights: Mapping[str, np.ndarray], path: str, row: np.ndarray
) -> np.ndarray:
    def through(name: str, x: np.ndarray) -> np.ndarray:
        return weights[f"{path}.{name}.weight"] @ x + weights.get(f"{path}.{name}.bias", 0.0)

    up = through("up", row)
    if spec.activation == "clamped_swiglu":
        gate, up = np.minimum(through("gate", row), 7.0), np.clip(up, -7.0, 7.0)
        return through("down", (up + 1) * gate * _sigmoid(1.702 * gate))
    activate = _ACTIVATIONS[spec.activation]
    return through("down", activate(through("gate", row)) * up if spec.gated else activate(up))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
