"""Mamba 2: a state space over positions with one decay a head (Dao and Gu 2024, arXiv 2405.21060)."""

import math
from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import gate_function
from macllm.nn.compiled import compiled
from macllm.nn.convolution import CausalConvolution
from macllm.nn.mamba import time_steps
from macllm.nn.norm import GatedRMSNorm
from macllm.nn.parameters import Parameters
from macllm.nn.ssd import Inputs, chunked, single
from macllm.nn.state_cache import StateCache, States, run
from macllm.nn.step import Step
from macllm.spec import Mamba2


class Mamba2Block(Module):
    """Gate, x, B, C and time steps from one matrix; x, B and C go through a convolution and into the recurrence."""

    def __init__(self, spec: Mamba2, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        self.in_proj = parameters.linear(prefix, "in", bias=spec.bias)
        self.conv = CausalConvolution(parameters, f"{prefix}.conv", bias=spec.conv_bias, silu=True)
        self.out_proj = parameters.linear(prefix, "out", bias=spec.out_bias)
        self.dt_bias = parameters.vector(f"{prefix}.dt_bias", wide=True)
        self.A_log = parameters.vector(f"{prefix}.A_log", wide=True)
        self.D = parameters.vector(f"{prefix}.D", wide=True)
        self._rates = -mx.exp(self.A_log)  # (H,)
        mx.eval(self._rates)
        if spec.norm is not None:
            weight = parameters.vector(f"{prefix}.norm.weight")
            self.norm = GatedRMSNorm(
                weight, spec.norm.eps, gate_first=not spec.norm_first, groups=spec.groups
            )
        self._gate = gate_function("silu")
        self._limited = spec.shortest_step > 0 or spec.longest_step < math.inf

    def __call__(self, x: mx.array, step: Step, caches: Sequence[StateCache]) -> mx.array:
        """(B, L, D) to (B, L, D); with a cache, its tokens come before and these are added to it."""
        spec = self.spec
        z, xbc, dt = mx.split(self.in_proj(x), [spec.inner, spec.inner + spec.convolved], axis=-1)
        dt = compiled(time_steps)(dt, self.dt_bias)  # (B, L, H)
        if self._limited:
            dt = mx.clip(dt, spec.shortest_step, spec.longest_step)
        valid = step.valid
        if valid is not None:
            xbc, dt = (mx.where(valid[..., None], array, 0) for array in (xbc, dt))
        y = run(self._recurrence, (xbc, dt), caches)  # (B, L, I)
        return self.out_proj(self.norm(y, z) if "norm" in self else self._gate(z, y))

    def _recurrence(self, inputs: tuple[mx.array, ...], states: States | None) -> tuple[mx.array, States]:
        spec = self.spec
        xbc, dt = inputs
        tail, state = states if states is not None else (None, None)
        xbc, tail = self.conv(xbc, tail)
        batch, length, _ = xbc.shape
        x, b, c = mx.split(xbc, [spec.inner, spec.inner + spec.groups * spec.state], axis=-1)
        given = Inputs(
            x.reshape(batch, length, spec.heads, spec.head_dim),
            dt,
            b.reshape(batch, length, spec.groups, spec.state),
            c.reshape(batch, length, spec.groups, spec.state),
            self._rates,
            self.D,
        )
        if length == 1 and state is not None:
            y, state = single(given, state)
        else:
            y, state = chunked(given, state)
        return y.reshape(batch, length, spec.inner).astype(xbc.dtype), (tail, state)
