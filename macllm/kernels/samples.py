"""Numbers to try kernels on: always the same ones, and how near a result must come."""

import zlib
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from macllm.kernels.kernel import Reference

# of the largest magnitude: what is left of a sum in float32, and one rounding to 11 or 8 bits with room for the rest
TOLERANCES = {mx.float32: 2e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}


def random(shape: Sequence[int], dtype: mx.Dtype = mx.float32) -> mx.array:
    """Normally distributed numbers, the same ones for the same shape and type."""
    seed = zlib.crc32(f"{tuple(shape)} {dtype}".encode())
    found = np.random.default_rng(seed).standard_normal(tuple(shape)).astype(np.float32)
    return mx.array(found).astype(dtype)


def bits(shape: Sequence[int], dtype: mx.Dtype = mx.uint32) -> mx.array:
    """Whole numbers of random bits, made where the device is: for matrices so large that NumPy would take seconds."""
    octets = (*shape[:-1], shape[-1] * dtype.size)
    return mx.random.randint(0, 256, octets, mx.uint8, key=mx.random.key(0)).view(dtype)


def as_float64(array: mx.array) -> Reference:
    """Any array's numbers, exactly, as NumPy's widest floats."""
    narrow = array.astype(mx.float32) if array.dtype == mx.bfloat16 else array
    return np.array(narrow).astype(np.float64)


def relative_error(found: mx.array, expected: Reference) -> float:
    """The largest error, relative to the largest magnitude expected; infinite where a number is none."""
    values = as_float64(found)
    if values.shape != expected.shape or not np.isfinite(values).all():
        return float("inf")
    if not expected.size:
        return 0.0
    largest = float(np.abs(expected).max())
    worst = float(np.abs(values - expected).max())
    return worst / largest if largest > 0 else worst
