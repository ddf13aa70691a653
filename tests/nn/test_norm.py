"""Norms with a gate, against their formula."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn.norm import GatedRMSNorm

RNG = np.random.default_rng(0)


def rms(y: np.ndarray, eps: float) -> np.ndarray:
    return y / np.sqrt((y * y).mean(-1, keepdims=True) + eps)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("gate_first", [False, True])
def test_gated_norm_is_its_formula(groups: int, gate_first: bool) -> None:
    y, z = RNG.normal(size=(2, 2, 5, 3, 8))
    weight = RNG.normal(size=8)
    norm = GatedRMSNorm(mx.array(weight).astype(mx.float32), 1e-3, gate_first=gate_first, groups=groups)
    gate = z / (1 + np.exp(-z))
    parts = ((y * gate) if gate_first else y).reshape(2, 5, 3, groups, -1)
    expected = rms(parts, 1e-3).reshape(y.shape) * weight * (1 if gate_first else gate)
    found = norm(mx.array(y).astype(mx.float32), mx.array(z).astype(mx.float32))
    assert np.abs(np.array(found) - expected).max() < 1e-5
