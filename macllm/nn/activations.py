"""Gated activations, fused into one kernel where MLX compiles for the device."""

from collections.abc import Callable
from typing import TypeAlias

import mlx.core as mx

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


_PLAIN: dict[Activation, Gate] = {"silu": swiglu, "gelu_tanh": geglu_tanh}
_COMPILED: dict[Activation, Gate] = {name: mx.compile(gate, shapeless=True) for name, gate in _PLAIN.items()}


def gate_function(activation: Activation) -> Gate:
    """The activation's function. On CPU uncompiled: MLX would call a C++ compiler at run time there."""
    return _COMPILED[activation] if mx.default_device() == mx.gpu else _PLAIN[activation]
