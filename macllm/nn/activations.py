"""Gated activations, fused into one kernel where MLX compiles for the device."""

from collections.abc import Callable
from typing import TypeAlias

import mlx.core as mx

from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.spec import Activation

Gate: TypeAlias = Callable[[mx.array, mx.array], mx.array]

_GELU_SCALE = 0.7978845608028654  # sqrt(2 / pi)


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """``silu(gate) * up``."""
    return gate * mx.sigmoid(gate) * up


def geglu_tanh(gate: mx.array, up: mx.array) -> mx.array:
    """``gelu(gate) * up`` with the tanh approximation (Hendrycks and Gimpel 2016)."""
    inner = _GELU_SCALE * (gate + 0.044715 * gate * gate * gate)
    return 0.5 * gate * (1 + mx.tanh(inner)) * up


def swiglu_by_power(gate: mx.array, up: mx.array) -> mx.array:
    """:func:`swiglu` with ``sigmoid(x) = 1 / (1 + 2 ** (-x log2 e))``."""
    if gate.dtype != mx.float32:
        return swiglu(gate, up)  # half precision overflows
    return gate / (1 + exp2(gate * -LOG2_E)) * up


def geglu_tanh_by_power(gate: mx.array, up: mx.array) -> mx.array:
    """:func:`geglu_tanh` with ``(1 + tanh(x)) / 2 = sigmoid(2 x)``."""
    if gate.dtype != mx.float32:
        return geglu_tanh(gate, up)
    inner = gate + 0.044715 * gate * gate * gate
    return gate / (1 + exp2(inner * (-2 * LOG2_E * _GELU_SCALE))) * up


_PLAIN: dict[Activation, Gate] = {"silu": swiglu, "gelu_tanh": geglu_tanh}
_COMPILED: dict[Activation, Gate] = {name: mx.compile(gate, shapeless=True) for name, gate in _PLAIN.items()}
_BY_POWER: dict[Activation, Gate] = {"silu": swiglu_by_power, "gelu_tanh": geglu_tanh_by_power}


def gate_function(activation: Activation) -> Gate:
    """The activation's function. On CPU uncompiled: MLX would call a C++ compiler at run time there."""
    if mx.default_device() == mx.gpu:
        return _COMPILED[activation]
    return _BY_POWER[activation] if slow_exponential() else _PLAIN[activation]
