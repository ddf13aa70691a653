"""Products with matrices in MLX's affine packing, in the precision that kernels are held to, and matrices to try.

A matrix (N, K) of ``bits`` 4 or 8 is stored as ``weight`` uint32 (N, K * bits / 32), the first code in the low bits,
and ``scales`` and ``biases`` (N, K / group_size): a weight is ``scale * code + bias``.
"""

import mlx.core as mx
import numpy as np

from macllm.kernels.kernel import Reference
from macllm.kernels.samples import as_float64, random
from macllm.kernels.samples import bits as random_bits

BITS = (4, 8)  # that divide a word

Stored = tuple[mx.array, mx.array, mx.array]  # weight, scales, biases


def layout(inputs: int, weight: mx.array, scales: mx.array) -> tuple[int, int]:
    """Group size and bits of a matrix with so many inputs, by the shapes of its parts."""
    return inputs // scales.shape[-1], weight.shape[-1] * 32 // inputs


def product(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> mx.array:
    """Rows x (R, K) times a matrix: (R, N) in float32. In float32 throughout, since MLX sums in x's type on a CPU."""
    return mlx_product(x.astype(mx.float32), weight, scales.astype(mx.float32), biases.astype(mx.float32))


def mlx_product(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> mx.array:
    """:func:`product` by MLX's own kernel, in x's type."""
    group_size, bits = layout(x.shape[-1], weight, scales)
    return mx.quantized_matmul(x, weight, scales, biases, True, group_size, bits)


def sample(
    shape: tuple[int, int], group_size: int, bits: int, dtype: mx.Dtype, *, wild: bool = False
) -> Stored:
    """A matrix with scales and biases of ``dtype``; ``wild``: rows of very different sizes, a constant one, zeros."""
    matrix = random(shape) * 0.05
    if wild:
        sizes = np.logspace(-3, 3, shape[0], dtype=np.float32)[:, None]
        matrix = matrix * mx.array(sizes)
        matrix[0] = 0.0
        matrix[1] = 1.5
    weight, scales, biases = mx.quantize(matrix, group_size, bits)
    return weight, scales.astype(dtype), biases.astype(dtype)


def arbitrary(shape: tuple[int, int], bits: int, dtype: mx.Dtype, group_size: int = 64) -> Stored:
    """A matrix of a model's size with weights within 0.05 of zero, made where the device is."""
    outputs, inputs = shape
    groups = (outputs, inputs // group_size)
    scales = mx.full(groups, 0.05 / 2 ** (bits - 1), dtype)
    stored = random_bits((outputs, inputs * bits // 32)), scales, mx.full(groups, -0.05, dtype)
    mx.eval(stored)
    return stored


def exact(weight: mx.array, scales: mx.array, biases: mx.array, bits: int) -> Reference:
    """The matrix in float64, unpacked without MLX."""
    words = np.array(weight)
    codes = (words[..., None] >> np.arange(0, 32, bits, dtype=np.uint32)) & (2**bits - 1)
    groups = codes.reshape(*scales.shape, -1)
    whole: Reference = groups * as_float64(scales)[..., None] + as_float64(biases)[..., None]
    return whole.reshape(words.shape[0], -1)
