"""Activations, alone and as gates, fused into one kernel where MLX compiles for the device."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import TypeAlias

import mlx.core as mx

from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.spec import Activation

Gate: TypeAlias = Callable[[mx.array, mx.array], mx.array]
Function: TypeAlias = Callable[[mx.array], mx.array]

_GELU_SCALE = 0.7978845608028654  # sqrt(2 / pi)
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
    return x / (1 + exp2(x * -LOG2_E))


def gelu_tanh_by_power(x: mx.array) -> mx.array:
    """:func:`gelu_tanh` with ``(1 + tanh(x)) / 2 = sigmoid(2 x)``."""
    if x.dtype != mx.float32:
        return gelu_tanh(x)
    inner = x + 0.044715 * x * x * x
    return x / (1 + exp2(inner * (-2 * LOG2_E * _GELU_SCALE)))


def clamped_swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """``(up + 1) * gate * sigmoid(1.702 gate)``, gate at most 7 and up within 7 of 0 (gpt-oss)."""
    gate, up = mx.minimum(gate, _CLAMP), mx.clip(up, -_CLAMP, _CLAMP)
    return (up + 1) * gate * mx.sigmoid(_CLAMPED_SLOPE * gate)


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
def _compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    return mx.compile(function, shapeless=True)


@cache
def _compiled_gate(function: Function) -> Gate:
    return mx.compile(partial(gated, function), shapeless=True)
