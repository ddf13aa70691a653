"""Mixture of experts: a router chooses a few of many feed-forward blocks for each token.

In a prompt the tokens are sorted by expert, so that each expert's weights are read once; in decoding one gather
takes the few that are needed.
"""

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import activation_function, gate_function
from macllm.nn.mlp import MLPBlock
from macllm.nn.parameters import Parameters
from macllm.spec import LatentMoE, MoE, SparseMixer

_SORTED_FROM = 64  # choices; fewer are not worth sorting


class MoEBlock(Module):
    """Router, experts and what every token goes through beside them."""

    def __init__(self, spec: MoE, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        self.router = parameters.linear(prefix, "router", bias=spec.router_bias)
        if spec.correction:
            self.correction = parameters.vector(f"{prefix}.correction", wide=True)
        self.experts_up = parameters.stack(f"{prefix}.experts", *spec.inputs, bias=spec.bias)
        self.experts_down = parameters.stack(f"{prefix}.experts", "down", bias=spec.bias)
        if spec.shared is not None:
            self.shared = MLPBlock(spec.shared, parameters, f"{prefix}.shared")
        if spec.shared_gated:
            self.shared_gate = parameters.linear(prefix, "shared_gate")
        self._gate = gate_function(spec.activation) if spec.gated else None
        self._activate = activation_function(spec.activation) if not spec.gated else None

    def __call__(self, x: mx.array) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        batch, length, dim = x.shape
        rows = x.reshape(-1, dim)  # (T, D), T = B L
        index, weights = self.route(self.router(rows))  # (T, k) each
        y = self._mixed(rows, index, weights).reshape(batch, length, dim)
        if self.spec.shared is None:
            return y
        shared = self.shared(x)
        if self.spec.shared_gated:
            shared = shared * mx.sigmoid(self.shared_gate(x))
        return y + shared

    def route(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """The experts (T, k) that rows with router logits (T, E) go to, and their weights, in float32."""
        spec = self.spec
        logits = logits.astype(mx.float32)
        match spec.score:
            case "softmax":
                scores = mx.softmax(logits, axis=-1)
            case "sigmoid":
                scores = mx.sigmoid(logits)
            case "softmax_chosen":
                scores = logits
        choice = scores + self.correction if spec.correction else scores
        if spec.groups > spec.top_groups:
            choice = self._within_groups(choice)
        index = mx.stop_gradient(mx.argpartition(-choice, kth=spec.top_k - 1, axis=-1)[:, : spec.top_k])
        weights = mx.take_along_axis(scores, index, axis=-1)
        if spec.score == "softmax_chosen":
            weights = mx.softmax(weights, axis=-1)
        if spec.renormalize:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)
        return index, weights * spec.weight_scale if spec.weight_scale != 1.0 else weights

    def _within_groups(self, choice: mx.array) -> mx.array:
        """The choice (T, E) with the experts of all but the best groups out of the question."""
        spec = self.spec
        groups = choice.reshape(-1, spec.groups, spec.experts // spec.groups)  # (T, G, E / G)
        if spec.group_score == "best":
            merit = groups.max(axis=-1)  # (T, G)
        else:
            merit = mx.topk(groups, 2, axis=-1).sum(axis=-1)
        losers = mx.argpartition(merit, kth=spec.groups - spec.top_groups - 1, axis=-1)
        losers = losers[:, : spec.groups - spec.top_groups]
        groups = mx.put_along_axis(groups, losers[..., None], mx.array(-mx.inf, groups.dtype), axis=-2)
        return groups.reshape(choice.shape)

    def _mixed(self, rows: mx.array, index: mx.array, weights: mx.array) -> mx.array:
        """What the experts (T, k) make of rows (T, D), weighed and summed (T, D)."""
        y = self._experts(rows, index)  # (T, k, D)
        return (y * weights[..., None].astype(y.dtype)).sum(axis=1)

    def _experts(self, rows: mx.array, index: mx.array) -> mx.array:
        """Rows (T, D), each through its experts (T, k), to (T, k, D)."""
        count, chosen = index.shape
        if index.size < _SORTED_FROM:
            return self._through(rows[:, None, None], index, ordered=False).squeeze(-2)
        flat = index.reshape(-1)  # (T k)
        order = mx.argsort(flat)
        y = self._through(rows[order // chosen][:, None], flat[order], ordered=True)  # (T k, 1, D)
        return y[mx.argsort(order)].reshape(count, chosen, -1)

    def _through(self, x: mx.array, index: mx.array, *, ordered: bool) -> mx.array:
        """Rows x (..., 1, D) through the experts of ``index`` (...)."""
        y = self.experts_up.gather(x, index, ordered=ordered)
        if self._gate is not None:
            y = self._gate(*mx.split(y, 2, axis=-1))
        elif self._activate is not None:
            y = self._activate(y)
        return self.experts_down.gather(y, index, ordered=ordered)


class LatentMoEBlock(MoEBlock):
    """Experts that work in a narrower space than the router and what is beside them."""

    def __init__(self, spec: LatentMoE, parameters: Parameters, prefix: str) -> None:
        super().__init__(spec, parameters, prefix)
        self.latent_down = parameters.linear(prefix, "latent_down", bias=spec.latent_bias)
        self.latent_up = parameters.linear(prefix, "latent_up", bias=spec.latent_bias)

    def _mixed(self, rows: mx.array, index: mx.array, weights: mx.array) -> mx.array:
        """The same, down and up again (T, D): one projection of the sum, not one of each expert's part."""
        return self.latent_up(super()._mixed(self.latent_down(rows), index, weights))


class SparseMixerBlock(MoEBlock):
    """Experts chosen one after the other, as :class:`macllm.spec.SparseMixer` says."""

    def __init__(self, spec: SparseMixer, parameters: Parameters, prefix: str) -> None:
        super().__init__(spec, parameters, prefix)
        self._band = 2 * spec.jitter

    def route(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        logits = left = logits.astype(mx.float32)
        index, weights = [], []
        for _ in range(self.spec.top_k):
            best = left.max(axis=-1, keepdims=True)
            chosen = mx.stop_gradient(mx.argmax(left, axis=-1, keepdims=True))
            far = best - logits > self._band * mx.maximum(mx.abs(logits), best)
            near = mx.softmax(mx.where(far, -mx.inf, left), axis=-1)
            index.append(chosen)
            weights.append(mx.take_along_axis(near, chosen, axis=-1))
            left = mx.put_along_axis(left, chosen, mx.array(-mx.inf), axis=-1)
        return mx.concatenate(index, axis=-1), mx.concatenate(weights, axis=-1)


def balancing_loss(logits: mx.array, top_k: int) -> mx.array:
    """The loss that keeps experts equally busy (Fedus et al. 2021), for router logits (T, E) of one layer.

    The number of experts times the sum, over experts, of the share of choices that fall on it and its mean
    probability; 1 where all are equally busy, times ``top_k`` as Hugging Face counts it.
    """
    experts = logits.shape[-1]
    probabilities = mx.softmax(logits.astype(mx.float32), axis=-1)
    index = mx.stop_gradient(mx.argpartition(-logits, kth=top_k - 1, axis=-1)[:, :top_k])
    chosen = (index[..., None] == mx.arange(experts)).astype(mx.float32).sum(axis=1)  # (T, E)
    return experts * (chosen.mean(axis=0) * probabilities.mean(axis=0)).sum()
