"""Which experts each token goes to, and what each weighs: every way to score and choose, fused into few kernels where
MLX compiles for the device.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import TypeAlias

import mlx.core as mx

from macllm.spec import MoE, SparseMixer

# logits (T, E) and, where the choice is corrected, a bias (E), to experts (T, k) and their weights (T, k) in float32
Routing: TypeAlias = Callable[..., tuple[mx.array, mx.array]]


@cache
def routing(spec: MoE) -> Routing:
    """The way of a specification, one for all layers that have it."""
    chosen: Routing = partial(best_scored, spec)
    if isinstance(spec, SparseMixer):
        chosen = partial(sparse_mixed, spec)
    return mx.compile(chosen) if mx.default_device() == mx.gpu else chosen


def best_scored(spec: MoE, logits: mx.array, correction: mx.array | None = None) -> tuple[mx.array, mx.array]:
    """The ``top_k`` experts with the best scores, as :class:`macllm.spec.MoE` says."""
    logits = logits.astype(mx.float32)
    match spec.score:
        case "softmax":
            scores = mx.softmax(logits, axis=-1)
        case "sigmoid":
            scores = mx.sigmoid(logits)
        case "softmax_chosen":
            scores = logits
    choice = scores if correction is None else scores + correction
    if spec.groups > spec.top_groups:
        choice = _within_groups(spec, choice)
    index = mx.stop_gradient(mx.argpartition(-choice, kth=spec.top_k - 1, axis=-1)[:, : spec.top_k])
    weights = mx.take_along_axis(scores, index, axis=-1)
    if spec.score == "softmax_chosen":
        weights = mx.softmax(weights, axis=-1)
    if spec.renormalize:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)
    return index, weights * spec.weight_scale if spec.weight_scale != 1.0 else weights


def _within_groups(spec: MoE, choice: mx.array) -> mx.array:
    """The choice (T, E) with the experts of all but the best groups out of the question."""
    groups = choice.reshape(-1, spec.groups, spec.experts // spec.groups)  # (T, G, E / G)
    if spec.group_score == "best":
        merit = groups.max(axis=-1)  # (T, G)
    else:
        merit = mx.topk(groups, 2, axis=-1).sum(axis=-1)
    losers = mx.argpartition(merit, kth=spec.groups - spec.top_groups - 1, axis=-1)
    losers = losers[:, : spec.groups - spec.top_groups]
    groups = mx.put_along_axis(groups, losers[..., None], mx.array(-mx.inf, groups.dtype), axis=-2)
    return groups.reshape(choice.shape)


def sparse_mixed(spec: SparseMixer, logits: mx.array) -> tuple[mx.array, mx.array]:
    """Experts chosen one after the other, as :class:`macllm.spec.SparseMixer` says."""
    logits = left = logits.astype(mx.float32)
    index, weights = [], []
    for _ in range(spec.top_k):
        best = left.max(axis=-1, keepdims=True)
        chosen = mx.stop_gradient(mx.argmax(left, axis=-1, keepdims=True))
        far = best - logits > 2 * spec.jitter * mx.maximum(mx.abs(logits), best)
        near = mx.softmax(mx.where(far, -mx.inf, left), axis=-1)
        index.append(chosen)
        weights.append(mx.take_along_axis(near, chosen, axis=-1))
        left = mx.put_along_axis(left, chosen, mx.array(-mx.inf), axis=-1)
    return mx.concatenate(index, axis=-1), mx.concatenate(weights, axis=-1)
