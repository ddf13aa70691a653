"""Products of a few rows with packed matrices: what is launched, and the gradients of what defines them."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from macllm.kernels import affine, dispatch, nf4, nf4_kernels, skinny
from macllm.kernels.kernel import Launch
from macllm.kernels.permission import running_on
from macllm.kernels.registry import KERNELS
from macllm.kernels.samples import TOLERANCES, random, relative_error
from macllm.kernels.workload import standard
from macllm.quantization import Quantization


@pytest.mark.parametrize("bits", affine.BITS)
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_the_packing_is_told_by_the_shapes(bits: int, group_size: int) -> None:
    weight, scales, _ = affine.sample((8, 384), group_size, bits, mx.float16)
    assert affine.layout(384, weight, scales) == (group_size, bits)


@pytest.mark.parametrize("bits", affine.BITS)
def test_unpacked_without_mlx_a_matrix_is_what_mlx_says(bits: int) -> None:
    stored = affine.sample((6, 192), 64, bits, mx.float32)
    found = mx.dequantize(*stored, 64, bits)
    assert relative_error(found, affine.exact(*stored, bits)) <= TOLERANCES[mx.float32]


@pytest.mark.parametrize("name", ["skinny_affine4", "skinny_affine8", "skinny_nf4"])
def test_threads_cover_every_output_and_rows_are_not_compiled_in(name: str) -> None:
    kernel = KERNELS[name]
    rows_by_function: dict[tuple[object, ...], set[int]] = {}
    for case in kernel.cases():
        launch = kernel.bind(**case.arguments)
        assert launch.grid[1] // launch.threadgroup[1] * 32 >= case.shape[0]
        assert (
            launch.grid[0] * launch.threadgroup[1] >= 32 * skinny.ROWS[1]
        )  # a thread for each number of a tile
        rows_by_function.setdefault(tuple(launch.template.items()), set()).add(case.rows)
    assert set(range(2, 9)) in rows_by_function.values()


@pytest.mark.parametrize("name", ["skinny_affine4", "skinny_affine8", "skinny_nf4"])
def test_gradients_reach_the_rows_through_the_matrix(name: str) -> None:
    x, weights = random((3, 64)), random((10, 64))
    if name == "skinny_nf4":
        stored = nf4.quantize(weights)
        matrix = nf4_kernels.exact(*stored)
    else:
        bits = int(name[-1])
        stored = affine.sample((10, 64), 32, bits, mx.float32)
        matrix = affine.exact(*stored, bits)
    seen = random((3, 10))
    found = mx.grad(lambda x: (KERNELS[name].twin(x, *stored)[0] * seen).sum())(x)
    assert relative_error(found, np.array(seen, np.float64) @ matrix) <= TOLERANCES[mx.float32]


@pytest.mark.parametrize("name", ["skinny_affine4", "skinny_affine8", "skinny_nf4"])
def test_it_is_timed_on_a_models_matrices_against_the_same_product(name: str) -> None:
    kernel, work = KERNELS[name], replace(standard(mx.float32), matrices=((64, 128), (48, 64)), dim=128)
    assert kernel.samples is not None
    samples = list(kernel.samples(work))
    assert [(sample.shape, sample.rows) for sample in samples] == [
        (shape, rows) for shape in work.matrices for rows in (2, 3, 4, 6, 8)
    ]
    for sample in samples:
        (expected,) = kernel.twin(**sample.arguments)
        (found,) = (kernel.rival or kernel.twin)(**sample.arguments)
        assert found.shape == (sample.rows, sample.shape[0])
        assert relative_error(found, np.array(expected, np.float64)) < 1e-5


@pytest.mark.parametrize("bits", affine.BITS)
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_products_of_a_few_rows_go_through_it_where_kernels_are_on(
    bits: int, group_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", "on")
    kernel, q = KERNELS[f"skinny_affine{bits}"], Quantization(bits, group_size)
    stored = affine.sample((40, 128), group_size, bits, mx.float32)
    ran: list[int] = []

    def run(launch: Launch) -> list[mx.array]:
        assert launch.body is kernel.body
        assert (launch.template["GS"], launch.template["BITS"]) == (group_size, bits)
        ran.append(launch.inputs[0].shape[0])
        return list(kernel.twin(*launch.inputs))

    for rows in (1, 2, 8, 9):
        x = random((1, rows, 128))
        expected = dispatch.product(x, q, *stored)
        with running_on(run):
            found = dispatch.product(x, q, *stored)
        assert relative_error(found, np.array(expected, np.float64)) < 1e-5
    assert ran == [2, 8]
