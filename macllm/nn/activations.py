"""Activations, alone and as gates, fused into one kernel where MLX compiles for the device."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.nn.parameters import Parameters
from macllm.spec import Activation
from macllm.spec.channel import XIELU_NUMBERS

Gate: TypeAlias = Callable[[mx.array, mx.array], mx.array]
Function: TypeAlias = Callable[[mx.array], mx.array]

_GELU_SCALE = 0.7978845608028654  # sqrt(2 / pi)
# arrays, since making one of a number takes as long as an operation
_ONE, _SIGMOID_BASE_2, _GELU_BASE_2 = (mx.array(x) for x in (1.0, -LOG2_E, -2 * LOG2_E * _GELU_SCALE))
_MOST = mx.array(126.0)  # an infinite power has no gradient, and one beyond this nothing left to add
_CLAMP, _CLAMPED_SLOPE = 7.0, 1.702  # gpt-oss's


def silu(x: mx.array) -> mx.array:
    """``x * sigmoid(x)`` (Elfwing et al. 2017)."""
    return x * mx.sigmoid(x)


def gelu(x: mx.array) -> mx.array:
    """``x * P(X <= x)`` for a standard normal X (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """:func:`gelu` with the tanh approximation."""
    inner = _GELU_SCALE * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + mx.tanh(inner))


def relu(x: mx.array) -> mx.array:
    """``max(x, 0)``."""
    return mx.maximum(x, 0)


def relu2(x: mx.array) -> mx.array:
    """``max(x, 0) ** 2`` (So et al. 2021)."""
    return mx.square(mx.maximum(x, 0))


def silu_by_power(x: mx.array) -> mx.array:
    """:func:`silu` with ``sigmoid(x) = 1 / (1 + 2 ** (-x log2 e))``."""
    if x.dtype != mx.float32:
        return silu(x)  # half precision overflows
    return x / (_ONE + exp2(mx.minimum(x * _SIGMOID_BASE_2, _MOST)))


def gelu_tanh_by_power(x: mx.array) -> mx.array:
    """:func:`gelu_tanh` with ``(1 + tanh(x)) / 2 = sigmoid(2 x)``."""
    if x.dtype != mx.float32:
        return gelu_tanh(x)
    inner = x + 0.044715 * x * x * x
    return x / (_ONE + exp2(mx.minimum(inner * _GELU_BASE_2, _MOST)))


def clamped_swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """``(up + 1) * gate * sigmoid(1.702 gate)``, gate at most 7 and up within 7 of 0 (gpt-oss)."""
    gate, up = mx.minimum(gate, _CLAMP), mx.clip(up, -_CLAMP, _CLAMP)
    return (up + 1) * gate * mx.sigmoid(_CLAMPED_SLOPE * gate)


def xielu(x: mx.array, positive: mx.array, negative: mx.array, beta: mx.array, eps: mx.array) -> mx.array:
    """``positive x^2 + beta x`` above zero, ``negative (e^min(x, eps) - 1 - x) + beta x`` below (arXiv 2411.13010)."""
    wide = x.astype(mx.float32)
    below = negative * (mx.expm1(mx.minimum(wide, eps)) - wide)
    return (mx.where(wide > 0, positive * wide * wide, below) + beta * wide).astype(x.dtype)


class XIELU(Module):
    """:func:`xielu` with a layer's own numbers."""

    def __init__(self, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.alpha_p, self.alpha_n, self.beta, self.eps = (
            parameters.vector(f"{prefix}.{name}", wide=True) for name in XIELU_NUMBERS
        )
        softplus_p, softplus_n = mx.logaddexp(self.alpha_p, 0), mx.logaddexp(self.alpha_n, 0)
        self._slopes = (softplus_p, self.beta + softplus_n)
        self._function = _compiled(xielu) if mx.default_device() == mx.gpu else xielu

    def __call__(self, x: mx.array) -> mx.array:
        """(..., D) to (..., D)."""
        return self._function(x, *self._slopes, self.beta, self.eps)


_FUNCTIONS: dict[Activation, Function] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "relu2": relu2,
}
_BY_POWER: dict[Activation, Function] = {"silu": silu_by_power, "gelu_tanh": gelu_tanh_by_power}


def gated(function: Function, gate: mx.array, up: mx.array) -> mx.array:
    """``function(gate) * up`` (Shazeer 2020)."""
    return function(gate) * up


def activation_function(activation: Activation) -> Function:
    """The function, in the form that is fastest on the default device.

    On CPU uncompiled: MLX would call a C++ compiler at run time there.
    """
    if mx.default_device() == mx.gpu:
        return _compiled(_FUNCTIONS[activation])
    return _BY_POWER.get(activation, _FUNCTIONS[activation]) if slow_exponential() else _FUNCTIONS[activation]


def gate_function(activation: Activation) -> Gate:
    """The gate with that function."""
    if activation == "clamped_swiglu":
        return _compiled(clamped_swiglu) if mx.default_device() == mx.gpu else clamped_swiglu
    if mx.default_device() == mx.gpu:
        return _compiled_gate(_FUNCTIONS[activation])
    return partial(gated, activation_function(activation))


@cache
def soft_cap(cap: float, *, wide: bool = False) -> Function:
    """The function ``cap * tanh(x / cap)``, computed in float32 and, ``wide``, given back in it (Gemma 2)."""

    def capped(x: mx.array) -> mx.array:
        y = mx.tanh(x.astype(mx.float32) / cap) * cap
        return y if wide else y.astype(x.dtype)

    return mx.compile(capped, shapeless=True) if mx.default_device() == mx.gpu else capped


@cache
def _compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    return mx.compile(function, shapeless=True)


@cache
def _compiled_gate(function: Function) -> Gate:
    return mx.compile(partial(gated, function), shapeless=True)
