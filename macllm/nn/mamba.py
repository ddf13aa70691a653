"""Mamba 1: a selective state space over positions (Gu and Dao 2023, arXiv 2312.00752)."""

from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import gate_function
from macllm.nn.compiled import compiled
from macllm.nn.convolution import CausalConvolution
from macllm.nn.norm import make_norm
from macllm.nn.parameters import Parameters
from macllm.nn.selective_scan import Inputs, rates_of, scan
from macllm.nn.state_cache import StateCache, States, run
from macllm.nn.step import Step
from macllm.spec import Mamba

_ZERO = mx.array(0.0)  # of a number, an array would be made every time


class MambaBlock(Module):
    """A convolution, the scan, and a gate. Time steps, B and C are selected from the convolution's output."""

    def __init__(self, spec: Mamba, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        self.in_proj = parameters.linear(prefix, "in", bias=spec.bias)
        self.conv = CausalConvolution(parameters, f"{prefix}.conv", bias=spec.conv_bias, silu=True)
        self.x_proj = parameters.linear(prefix, "x")
        self.dt_proj = parameters.linear(prefix, "dt")
        self.out_proj = parameters.linear(prefix, "out", bias=spec.bias)
        if spec.norm is not None:
            self.dt_norm = make_norm(spec.norm, parameters, f"{prefix}.dt_norm")
            self.b_norm = make_norm(spec.norm, parameters, f"{prefix}.b_norm")
            self.c_norm = make_norm(spec.norm, parameters, f"{prefix}.c_norm")
        self.dt_bias = parameters.vector(f"{prefix}.dt_bias", wide=True)
        self.A_log = parameters.vector(f"{prefix}.A_log", wide=True)
        self.D = parameters.vector(f"{prefix}.D", wide=True)
        self._rates = rates_of(self.A_log)  # (I, N)
        mx.eval(self._rates)
        self._gate = gate_function("silu")
        self._time_steps = compiled(time_steps)

    def __call__(self, x: mx.array, step: Step, caches: Sequence[StateCache]) -> mx.array:
        """(B, L, D) to (B, L, D); with a cache, its tokens come before and these are added to it."""
        x, z = mx.split(self["in_proj"](x), 2, axis=-1)  # (B, L, I) each
        valid = step.valid
        inputs = (x,) if valid is None else (mx.where(valid[..., None], x, 0), valid)
        out: mx.array = self["out_proj"](self._gate(z, run(self._recurrence, inputs, caches)))
        return out

    def _recurrence(self, inputs: tuple[mx.array, ...], states: States | None) -> tuple[mx.array, States]:
        x, *valid = inputs
        tail, state = states if states is not None else (None, None)
        x, tail = self["conv"](x, tail)
        dt, b, c = self._selected(x)
        dt = self._time_steps(self["dt_proj"](dt), self["dt_bias"])
        if valid:
            dt = mx.where(valid[0][..., None], dt, 0)
        y, state = scan(Inputs(x, dt, b, c, self["_rates"], self["D"]), state)
        return y.astype(x.dtype), (tail, state)

    def _selected(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """(B, L, I) to what leads to the time steps (B, L, R), and B and C (B, L, N) each."""
        rank, state = self.spec.rank, self.spec.state
        dt, b, c = mx.split(self["x_proj"](x), [rank, rank + state], axis=-1)
        if self.spec.norm is None:
            return dt, b, c
        return self["dt_norm"](dt), self["b_norm"](b), self["c_norm"](c)


def time_steps(raw: mx.array, bias: mx.array) -> mx.array:
    """``softplus(raw + bias)`` in float32."""
    return mx.logaddexp(raw.astype(mx.float32) + bias, _ZERO)
