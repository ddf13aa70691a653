"""Affine weights packed again from the codes they had: never further from what is wanted than a new grid."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn.stored import Packed
from macllm.quantization import Quantization
from macllm.weights.refit import refit, refits

SHAPE = (6, 128)


def packed(values: mx.array, q: Quantization, dtype: mx.Dtype = mx.float32) -> Packed:
    weight, scales, biases = mx.quantize(values.astype(dtype), group_size=q.group_size, bits=q.bits)
    return Packed(weight, scales, biases, q)


def off(found: Packed, wanted: mx.array) -> np.ndarray:
    """The squared error of each group."""
    error = np.array(found.dequantize(mx.float32) - wanted, np.float64) ** 2
    return error.reshape(-1, found.quantization.group_size).sum(axis=-1)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("change", [0.0, 0.01, 0.1, 1.0])
def test_no_group_is_further_off_than_with_a_new_grid(bits: int, change: float) -> None:
    q = Quantization(bits, 32)
    old = packed(mx.random.normal(SHAPE, key=mx.random.key(0)), q)
    base = old.dequantize(mx.float32)
    wanted = base + change * mx.random.normal(SHAPE, key=mx.random.key(1))
    fresh = packed(wanted, q)
    found = refit(old, wanted, fresh)
    assert (off(found, wanted) <= off(fresh, wanted) * (1 + 1e-4) + 1e-9).all()
    if bits < 8 and 0 < change < 1:
        assert off(found, wanted).sum() < off(fresh, wanted).sum()
    if change == 0:
        assert np.allclose(np.array(found.dequantize(mx.float32)), np.array(base), atol=1e-5)


def test_small_changes_are_kept_as_far_as_scales_and_biases_can() -> None:
    q = Quantization(4, 32)
    old = packed(mx.random.normal((64, 256), key=mx.random.key(0)), q)
    base = old.dequantize(mx.float32)
    delta = 0.01 * mx.random.normal((64, 256), key=mx.random.key(1))
    found = refit(old, base + delta, packed(base + delta, q)).dequantize(mx.float32) - base
    codes = np.array(base, np.float64).reshape(-1, 32)
    wanted = np.array(delta, np.float64).reshape(-1, 32)
    projected = []  # on the group's values and on a constant: what a scale and a bias can do
    for group, change in zip(codes, wanted, strict=True):
        plane = np.stack([group, np.ones(32)], axis=1)
        projected.append(plane @ np.linalg.lstsq(plane, change, rcond=None)[0])
    assert np.allclose(np.array(found).reshape(-1, 32), projected, atol=1e-5)


def test_only_whole_codes_of_a_word_with_scale_and_bias_are_refitted() -> None:
    values = mx.random.normal(SHAPE, key=mx.random.key(0))
    assert refits(packed(values, Quantization(4, 32)))
    assert not refits(packed(values, Quantization(3, 32)))
    weight, scales = mx.quantize(values, mode="mxfp4")
    assert not refits(Packed(weight, scales, None, Quantization(4, 32, "mxfp4")))
