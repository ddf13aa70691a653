"""Normalization."""

from typing import TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.kernels import fusions
from macllm.nn.activations import gate_function
from macllm.nn.parameters import Parameters
from macllm.spec import Norm


class RMSNorm(Module):
    """``x / rms(x) * weight`` over the last axis (Zhang and Sennrich 2019), accumulated in float32."""

    def __init__(self, weight: mx.array | None, eps: float) -> None:
        super().__init__()
        self.weight = weight  # (D,), or (H, 1, D) with one for each head
        self.eps = eps
        self.fuses = weight is not None and weight.ndim == 1 and fusions.possible()  # with a sum before it

    def __call__(self, x: mx.array) -> mx.array:
        weight: mx.array | None = self.get("weight")
        if weight is None or weight.ndim == 1:
            return mx.fast.rms_norm(x, weight, self.eps)
        return mx.fast.rms_norm(x, None, self.eps) * weight

    def of_sum(self, x: mx.array, y: mx.array) -> tuple[mx.array, mx.array]:
        """``x + y``, both (..., D), and its norm; in one kernel where one was chosen."""
        fused = fusions.add_norm(x, y, self["weight"], self.eps) if self.fuses else None
        if fused is not None:
            return fused
        total = x + y
        return total, self(total)


class LayerNorm(Module):
    """``(x - mean(x)) / std(x) * weight + bias`` over the last axis (Ba et al. 2016), accumulated in float32."""

    def __init__(self, weight: mx.array | None, bias: mx.array | None, eps: float) -> None:
        super().__init__()
        self.weight = weight  # (D,), or (H, 1, D) with one for each head
        self.bias = bias
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        weight: mx.array | None = self.get("weight")
        bias: mx.array | None = self.get("bias")
        if weight is None or weight.ndim == 1:
            return mx.fast.layer_norm(x, weight, bias, self.eps)
        y = mx.fast.layer_norm(x, None, None, self.eps) * weight
        return y if bias is None else y + bias


class GatedRMSNorm(Module):
    """RMSNorm and the gate ``silu(z)`` on the output of a recurrence: norm(y) * silu(z), or norm(y * silu(z)).

    With ``groups`` the last axis is normalized in so many parts, each for itself.
    """

    def __init__(self, weight: mx.array, eps: float, *, gate_first: bool = False, groups: int = 1) -> None:
        super().__init__()
        self.weight = weight  # (D,)
        self.eps = eps
        self._gate = gate_function("silu")
        self._gate_first, self._groups = gate_first, groups

    def __call__(self, y: mx.array, z: mx.array) -> mx.array:
        """Both (..., D)."""
        if not self._gate_first:
            return self._gate(z, self._normalized(y))
        return self._normalized(self._gate(z, y))

    def _normalized(self, y: mx.array) -> mx.array:
        weight: mx.array = self["weight"]
        if self._groups == 1:
            return mx.fast.rms_norm(y, weight, self.eps)
        parts = y.reshape(*y.shape[:-1], self._groups, -1)
        return mx.fast.rms_norm(parts, None, self.eps).reshape(y.shape) * weight


AnyNorm: TypeAlias = RMSNorm | LayerNorm


def make_norm(norm: Norm, parameters: Parameters, name: str) -> AnyNorm:
    """The norm whose tensors are ``name.weight`` and ``name.bias``, where it has any."""
    weight = _by_head(parameters.vector(f"{name}.weight")) if norm.weight else None
    bias = _by_head(parameters.vector(f"{name}.bias")) if norm.bias else None
    return RMSNorm(weight, norm.eps) if norm.kind == "rms" else LayerNorm(weight, bias, norm.eps)


def _by_head(vector: mx.array) -> mx.array:
    """A weight for each head (H, D) beside states (B, H, L, D)."""
    return vector[:, None] if vector.ndim == 2 else vector
