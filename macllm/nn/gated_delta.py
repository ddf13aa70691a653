"""Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464): linear attention that corrects what a key maps to."""

from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.compiled import compiled
from macllm.nn.convolution import CausalConvolution
from macllm.nn.delta_rule import Inputs, chunked, single
from macllm.nn.mamba import time_steps
from macllm.nn.norm import GatedRMSNorm
from macllm.nn.parameters import Parameters
from macllm.nn.state_cache import StateCache, States, run
from macllm.nn.step import Step
from macllm.spec import GatedDelta

_LENGTH_EPS = 1e-6  # beside the squared length of a query or key


class GatedDeltaBlock(Module):
    """All projections are one matrix; queries, keys and values go through a convolution and into the delta rule."""

    def __init__(self, spec: GatedDelta, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        self.input = parameters.linear(prefix, *spec.projections)
        self.conv = CausalConvolution(parameters, f"{prefix}.conv", silu=True)
        self.dt_bias = parameters.vector(f"{prefix}.dt_bias", wide=True)  # (H,)
        self.A_log = parameters.vector(f"{prefix}.A_log", wide=True)
        self.norm = GatedRMSNorm(parameters.vector(f"{prefix}.norm.weight"), spec.norm.eps)
        self.output = parameters.linear(prefix, "output")
        self._rate = -mx.exp(self.A_log)
        unit = spec.key_dim**-0.5  # from a root mean square of one to a length of one
        # of queries, which are scaled as in attention besides, and of keys
        self._lengths = mx.repeat(mx.array([unit * unit, unit]), spec.key_heads)[:, None]  # (2 K, 1)
        mx.eval(self._rate, self._lengths)

    def __call__(self, x: mx.array, step: Step, caches: Sequence[StateCache]) -> mx.array:
        """(B, L, D) to (B, L, D); with a cache, its tokens come before and these are added to it."""
        spec = self.spec
        batch, length, _ = x.shape
        projected = step.without_padding(self["input"](x))
        y = run(self._recurrence, (projected,), caches)  # (B, L, H, P)
        values = spec.value_heads * spec.value_dim
        z = projected[:, :, spec.convolved : spec.convolved + values].reshape(y.shape)
        out: mx.array = self["output"](self["norm"](y, z).reshape(batch, length, values))
        return out

    def _recurrence(self, inputs: tuple[mx.array, ...], states: States | None) -> tuple[mx.array, States]:
        tail, state = states if states is not None else (None, None)
        spec = self.spec
        values = spec.value_heads * spec.value_dim
        qkv, _, raw = mx.split(inputs[0], [spec.convolved, spec.convolved + values], axis=-1)
        qkv, tail = self["conv"](qkv, tail)
        given = self._given(qkv, raw)
        if state is not None and qkv.shape[1] == 1:
            y, state = single(given, state)
        else:
            y, state = chunked(given, state)
        return y.astype(qkv.dtype), (tail, state)

    def _given(self, qkv: mx.array, raw: mx.array) -> Inputs:
        """What goes into the rule, of convolved queries, keys and values and of unbounded betas and decays."""
        spec = self.spec
        batch, length, _ = qkv.shape
        qk, v = mx.split(qkv.astype(mx.float32), [2 * spec.key_heads * spec.key_dim], axis=-1)
        qk = qk.reshape(batch, length, 2 * spec.key_heads, spec.key_dim)
        beta, g = compiled(_gates)(raw, self["dt_bias"], self["_rate"])
        if spec.beta_scale != 1.0:
            beta = beta * spec.beta_scale
        qk = mx.fast.rms_norm(qk, None, _LENGTH_EPS / spec.key_dim) * self["_lengths"]
        q, k = mx.split(qk, 2, axis=2)
        return Inputs(q, k, v.reshape(batch, length, spec.value_heads, spec.value_dim), g, beta)


def _gates(raw: mx.array, dt_bias: mx.array, rate: mx.array) -> tuple[mx.array, mx.array]:
    """Betas between 0 and 1 and logarithms of decays (B, L, H), from (B, L, 2 H)."""
    beta, decay = mx.split(raw.astype(mx.float32), 2, axis=-1)
    return mx.sigmoid(beta), rate * time_steps(decay, dt_bias)
