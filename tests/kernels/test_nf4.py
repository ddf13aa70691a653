"""NF4: the values and levels of QLoRA, near enough, in the bytes that are promised, and torn apart without a change."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.kernels import nf4
from macllm.quantization import Quantization

Q = Quantization(4, 64, "nf4")


def matrix(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(3).standard_normal(shape).astype(np.float32)) * 0.02


def test_the_values_are_quantiles_of_a_normal_distribution() -> None:
    """Appendix E: 8 equal steps of probability below zero, 9 from zero on, the outermost at 0.9677."""
    found = np.array(nf4.values())
    assert found[0] == -1 and found[7] == 0 and found[15] == 1
    assert np.all(np.diff(found) > 0)
    draws = np.sort(np.random.default_rng(0).standard_normal(1_000_000))
    edge = 0.9677083
    above = np.quantile(draws, np.linspace(0.5, edge, 9)[1:])
    below = np.quantile(draws, 1 - np.linspace(0.5, edge, 8)[:0:-1])
    assert np.allclose(found[8:], above / above[-1], atol=0.01)
    assert np.allclose(found[:7], below / above[-1], atol=0.01)


def test_the_levels_are_the_dynamic_map() -> None:
    """arXiv 2110.02861: seven decades, each with twice as many steps as the one below, both signs, zero and one."""
    found = np.array(nf4.levels())
    assert len(found) == 256 and found[0] > -1 and found[-1] == 1
    assert 0 in found and np.all(np.diff(found) > 0)
    for decade in range(7):
        low, high = 10.0 ** (decade - 7), 10.0 ** (decade - 6)
        assert np.sum((found > low * 1.0001) & (found < high)) == 2**decade


@pytest.mark.parametrize("shape", [(8, 64), (33, 192), (192, 576), (64, 4096), (3, 40, 576)])
def test_bytes_are_those_of_the_arithmetic(shape: tuple[int, ...]) -> None:
    stored = nf4.quantize(matrix(*shape))
    weights = int(np.prod(shape))
    assert sum(array.nbytes for array in stored) == Q.nbytes(weights, int(np.prod(shape[:-2])))
    assert tuple(stored[2].shape) == Q.biases_shape(shape)


def test_a_large_matrix_takes_at_most_4_13_bits_a_weight() -> None:
    for shape in ((4096, 4096), (14336, 4096), (49152, 576), (1536, 576)):
        weights = shape[0] * shape[1]
        assert Q.nbytes(weights) * 8 / weights <= 4.13


def test_it_is_as_near_as_published() -> None:
    """Of normally distributed weights NF4 loses about nine percent, RMS; plain magnitudes no less."""
    wanted = matrix(256, 1024)
    stored = nf4.quantize(wanted)
    error = float(mx.sqrt(mx.mean((nf4.dequantize(*stored) - wanted) ** 2) / mx.mean(wanted**2)))
    assert 0.08 < error < 0.096


@pytest.mark.parametrize("value", [0.0, 1.0, -3e-8, 6e4])
def test_equal_weights_come_back_as_they_were(value: float) -> None:
    wanted = mx.full((12, 128), value)
    assert np.allclose(nf4.dequantize(*nf4.quantize(wanted)), wanted, rtol=1e-6)


def test_one_group_does_not_disturb_another() -> None:
    wanted = matrix(16, 1024)  # 16 blocks a row, a group is 16 rows
    twice = mx.concatenate([wanted, wanted * 1000])
    found = nf4.dequantize(*nf4.quantize(twice))
    assert mx.array_equal(found[:16], nf4.dequantize(*nf4.quantize(wanted)))


@pytest.mark.parametrize("width", [64, 576, 1024])
@pytest.mark.parametrize(
    "index",
    [slice(0, 16), slice(16, 64), slice(5, 9), slice(0, 70, 3), mx.array([3, 69, 0, 3])],
    ids=["first group", "to a group", "within", "stepping", "by number"],
)
def test_rows_of_it_are_rows_of_its_values(width: int, index: slice | mx.array) -> None:
    stored = nf4.quantize(matrix(70, width))
    part = nf4.rows(*stored, index)
    assert mx.array_equal(nf4.dequantize(*part), nf4.dequantize(*stored)[index])


def test_rows_that_end_with_groups_keep_their_groups() -> None:
    stored = nf4.quantize(matrix(64, 1024))
    assert nf4.rows(*stored, slice(16, 48))[2] is not None
    assert nf4.rows(*stored, slice(16, 47))[2] is None
