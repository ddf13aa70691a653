"""Products with matrices in MLX's affine packing, in the precision that kernels are held to, and matrices to try.

A matrix (N, K) of ``bits`` 4 or 8 is stored as ``weight`` uint32 (N, K * bits / 32), the first code in the low bits,
and ``scales`` and ``biases`` (N, K / group_size): a weight is ``scale * code + bias``.
"""

import mlx.core as mx
import numpy as np

from macllm.kernels.kernel import Reference
from macllm.kernels.samples import as_float64, random

BITS = (4, 8)  # that divide a word

Stored = tuple[mx.array, mx.array, mx.array]  # weight, scales, biases


def layout(inputs: int, weight: mx.array, scales: mx.array) -> tuple[int, int]:
    """Group size and bits of a matrix with so many inputs, by the shapes of its parts."""
    return inputs // scales.shape[-1], weight.shape[-1] * 32 // inputs


def product(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array) -> mx.array:
    """Rows x (R, K) times a matrix: (R, N) in float32. In float32 throughout, since MLX sums in x's type on a CPU."""
    wide = (array.astype(mx.float32) for array in (scales, biases))
    return mx.quantized_matmul(
        x.astype(mx.float32), weight, *wide, True, *layout(x.shape[-1], weight, scales)
    )


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


def exact(weight: mx.array, scales: mx.array, biases: mx.array, bits: int) -> Reference:
    """The matrix in float64, unpacked without MLX."""
    words = np.array(weight)
    codes = (words[..., None] >> np.arange(0, 32, bits, dtype=np.uint32)) & (2**bits - 1)
    groups = codes.reshape(*scales.shape, -1)
    whole: Reference = groups * as_float64(scales)[..., None] + as_float64(biases)[..., None]
    return whole.reshape(words.shape[0], -1)
