"""Feed-forward blocks of Gemma 3n and 4: gates that only stand out, and experts beside a dense block."""

from statistics import NormalDist

import mlx.core as mx

from macllm.families.custom.side import ExpertsBeside, SparseMLP
from macllm.nn.activations import gate_function
from macllm.nn.mlp import MLPBlock
from macllm.nn.moe import MoEBlock
from macllm.nn.norm import make_norm
from macllm.nn.parameters import Parameters


class SparseMLPBlock(MLPBlock):
    """``down(activation(max(gate(x) - cut, 0)) * up(x))``, the cut by mean and deviation of a token's gates."""

    def __init__(self, spec: SparseMLP, parameters: Parameters, prefix: str) -> None:
        super().__init__(spec, parameters, prefix)
        self._deviations = NormalDist().inv_cdf(spec.sparsity)
        self._plain = gate_function(spec.activation)
        self._gate = self._sparse

    def _sparse(self, gate: mx.array, up: mx.array) -> mx.array:
        wide = gate.astype(mx.float32)
        mean, deviation = mx.mean(wide, axis=-1, keepdims=True), mx.std(wide, axis=-1, keepdims=True)
        cut = (mean + self._deviations * deviation).astype(gate.dtype)
        return self._plain(mx.maximum(gate - cut, 0), up)


class ExpertsBesideBlock(MoEBlock):
    """The sum of what a dense block and the chosen experts make of the same states, each between its own norms."""

    def __init__(self, spec: ExpertsBeside, parameters: Parameters, prefix: str) -> None:
        super().__init__(spec, parameters, prefix)
        self.router_norm = make_norm(spec.norm, parameters, f"{prefix}.router_norm")
        self.experts_norm = make_norm(spec.norm, parameters, f"{prefix}.experts_norm")
        self.experts_post_norm = make_norm(spec.norm, parameters, f"{prefix}.experts_post_norm")
        self.shared_norm = make_norm(spec.norm, parameters, f"{prefix}.shared_norm")
        self.shared_post_norm = make_norm(spec.norm, parameters, f"{prefix}.shared_post_norm")
        self.expert_scale = parameters.vector(f"{prefix}.expert_scale", wide=True)  # (E,)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        rows = x.reshape(-1, x.shape[-1])  # (T, D)
        logits = self.router(self.router_norm(rows)).astype(mx.float32) * x.shape[-1] ** -0.5
        if self.watch is not None:
            self.watch(logits.reshape(*x.shape[:2], -1))
        index, weights = self.route(logits)  # (T, k) each
        weights = (weights * self.expert_scale[index])[..., None]
        y = self._experts(self.experts_norm(rows), index)  # (T, k, D)
        y = (y * weights.astype(y.dtype)).sum(axis=1).reshape(x.shape)
        return self.experts_post_norm(y) + self.shared_post_norm(self.shared(self.shared_norm(x)))
