"""Fusions give what the operations they join give, forward and backward."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from macllm.kernels import affine, fused
from macllm.kernels.registry import KERNELS
from macllm.kernels.samples import random
from macllm.kernels.workload import standard
from macllm.nn.norm import RMSNorm


def _unfused(x: mx.array, matrix: mx.array) -> mx.array:
    gate, up = mx.split(x @ matrix.T, 2, axis=-1)
    return gate / (1 + mx.exp(-gate)) * up


@pytest.mark.parametrize("bits", affine.BITS)
def test_gate_and_up_in_one_are_the_two_products_and_the_gate(bits: int) -> None:
    stored = affine.sample((14, 96), 32, bits, mx.float32)
    matrix, x = mx.dequantize(*stored, 32, bits), random((2, 96))
    np.testing.assert_allclose(fused.swiglu(x, *stored), _unfused(x, matrix), rtol=1e-4, atol=1e-6)
    found = mx.grad(lambda x: fused.swiglu(x, *stored).square().sum())(x)
    expected = mx.grad(lambda x: _unfused(x, matrix).square().sum())(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_sum_and_norm_in_one_are_the_sum_and_the_norm(dtype: mx.Dtype) -> None:
    x, y, weight = random((3, 40), dtype), random((3, 40), dtype) * 2, random((40,), dtype)
    total, normed = fused.add_norm(x, y, weight, 1e-6)
    assert mx.array_equal(total, x + y)
    assert mx.array_equal(normed, RMSNorm(weight, 1e-6)(x + y))


def test_gradients_of_sum_and_norm_reach_both_and_the_weight() -> None:
    x, y, weight = random((3, 40)), random((3, 40)) * 2, random((40,))

    def loss(x: mx.array, y: mx.array, weight: mx.array) -> mx.array:
        total, normed = fused.add_norm(x, y, weight, 1e-6)
        return (total * normed).sum()

    def plain(x: mx.array, y: mx.array, weight: mx.array) -> mx.array:
        total = x + y
        normed = total * mx.rsqrt(total.square().mean(axis=-1, keepdims=True) + 1e-6) * weight
        return (total * normed).sum()

    both = (mx.grad(function, argnums=(0, 1, 2))(x, y, weight) for function in (loss, plain))
    for found, expected in zip(*both, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_row_of_any_length_has_threads_in_whole_simdgroups() -> None:
    kernel = KERNELS["add_norm"]
    for width in (1, 20, 128, 129, 1001, 4096, 5000, 16384):
        x = mx.zeros((2, width))
        launch = kernel.bind(x=x, y=x, weight=mx.ones(width), eps=1e-5)
        threads = launch.threadgroup[0]
        assert threads % 32 == 0 and 32 <= threads <= 1024
        assert launch.grid == (threads, 2, 1)


@pytest.mark.parametrize("name", ["swiglu_affine4", "swiglu_affine8", "add_norm"])
def test_it_is_timed_at_a_models_sizes_against_what_it_joins(name: str) -> None:
    kernel = KERNELS[name]
    work = replace(standard(mx.float32), matrices=((256, 128), (128, 64), (99, 128)), dim=128)
    assert kernel.samples is not None
    samples = list(kernel.samples(work))
    shapes = [(128,)] if name == "add_norm" else [(256, 128), (128, 64)]
    rows = work.rows if name == "add_norm" else (1, 2, 3)
    assert [(each.shape, each.rows) for each in samples] == [(shape, r) for shape in shapes for r in rows]
    for sample in samples:
        expected, found = (each(**sample.arguments) for each in (kernel.twin, kernel.rival or kernel.twin))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
