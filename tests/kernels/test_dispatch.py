"""The choice of a kernel: off, on, by whom it is run, and the same numbers and gradients whoever computes them."""

import shutil
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from macllm.errors import OptionError
from macllm.kernels import dispatch, runners
from macllm.kernels.kernel import Launch
from macllm.kernels.permission import running_on
from macllm.kernels.registry import KERNELS
from macllm.quantization import Quantization

NF4 = Quantization(4, 64, "nf4")


class Twins:
    """Runs launches by the twins of their kernels, and keeps their names."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, launch: Launch) -> list[mx.array]:
        name = launch.body.name
        self.ran.append(name)
        given = dict(zip(launch.body.inputs, launch.inputs, strict=True))
        if name == "nf4_quantize":
            return list(KERNELS[name].twin(matrix=given["x"], found=given["magnitudes"]))
        second = given["seconds"] if launch.template["DOUBLE"] else None
        if name == "nf4_dequantize":
            return list(
                KERNELS[name].twin(
                    weight=given["weight"],
                    scales=given["codes"],
                    biases=second,
                    dtype=launch.output_dtypes[0],
                )
            )
        gathers = {"index": given["index"]} if launch.template.get("GATHER") else {}
        return list(
            KERNELS[name].twin(
                x=given["x"], weight=given["weight"], scales=given["codes"], biases=second, **gathers
            )
        )


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Twins:
    monkeypatch.setenv("MACLLM_KERNELS", "on")
    return Twins()


def array(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


def close(a: mx.array, b: mx.array) -> bool:
    return bool(np.allclose(a, b, atol=1e-5))


@pytest.mark.parametrize("rows", [1, 2, 8, 9, 40])
def test_a_product_is_the_same_by_kernel_and_by_expansion(rows: int, twins: Twins) -> None:
    stored, x = dispatch.pack(NF4, array(24, 128)), array(1, rows, 128)
    expected = dispatch.product(x, NF4, *stored)
    assert close(expected, x @ dispatch.expand(NF4, *stored, mx.float32).T)
    with running_on(twins):
        assert close(dispatch.product(x, NF4, *stored), expected)
    several = "skinny_nf4" if rows <= dispatch.MOST_ROWS else "nf4_dequantize"
    assert twins.ran == ["nf4_matvec" if rows == 1 else several]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, with which MLX compiles for a CPU")
def test_on_the_device_products_are_compiled_and_compiled_once(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "device_runner", lambda: twins)
    stored, x = dispatch.pack(NF4, array(24, 128)), array(1, 1, 128)
    expected = dispatch.product(x, NF4, *stored)
    with running_on(twins):
        for factor in (1.0, 2.0, 3.0):
            assert close(dispatch.product(x * factor, NF4, *stored), expected * factor)
        assert twins.ran == ["nf4_matvec"]
        gradient = mx.grad(lambda x: dispatch.product(x, NF4, *stored).sum())(x)
    assert close(gradient, dispatch.expand(NF4, *stored, mx.float32).sum(axis=0))


@pytest.mark.parametrize("pairs", [(1, 2), (3, 4), (40, 2)])
def test_rows_with_a_matrix_each_are_the_same_too(pairs: tuple[int, int], twins: Twins) -> None:
    whole = array(5, 24, 128)
    stored = dispatch.pack(NF4, whole)
    index = mx.array(np.random.default_rng(2).integers(0, 5, pairs))
    x = array(pairs[0], 1, 1, 128)
    values = dispatch.expand(NF4, *stored, mx.float32)
    expected = mx.gather_mm(x, values.swapaxes(-1, -2), rhs_indices=index)
    assert close(dispatch.gathered(x, index, NF4, *stored), expected)
    with running_on(twins):
        assert close(dispatch.gathered(x, index, NF4, *stored), expected)
    few = pairs[0] * pairs[1] <= dispatch.MOST_GATHERED
    assert twins.ran == ["nf4_matvec" if few else "nf4_dequantize"]


def test_a_matrix_is_packed_the_same_by_the_kernel(twins: Twins) -> None:
    expected = dispatch.pack(NF4, array(24, 128))
    with running_on(twins):
        found = dispatch.pack(NF4, array(24, 128))
    assert twins.ran == ["nf4_quantize"]
    assert all(mx.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("setting", ["off", "auto", ""])
def test_no_kernel_runs_unless_it_is_wanted_or_tried(
    setting: str, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", setting)
    with running_on(twins):
        dispatch.product(array(1, 128), NF4, *dispatch.pack(NF4, array(24, 128)))
    assert twins.ran == []


def test_a_setting_that_does_not_exist_is_named(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", "yes")
    with running_on(twins), pytest.raises(OptionError, match=r"MACLLM_KERNELS='yes'.*off, on or auto"):
        dispatch.choose("product", NF4, mx.float32, 1)


@pytest.mark.parametrize("gathers", [False, True])
def test_gradients_flow_through_the_expanded_matrix(gathers: bool, twins: Twins) -> None:
    stack = dispatch.pack(NF4, array(3, 24, 128) if gathers else array(24, 128))
    x = array(2, 1, 128)
    index = mx.array([2, 0])

    def loss(x: mx.array) -> mx.array:
        y = dispatch.gathered(x, index, NF4, *stack) if gathers else dispatch.product(x, NF4, *stack)
        return (y**2).sum()

    gradient: Callable[[mx.array], mx.array] = mx.grad(loss)
    expected = gradient(x)
    with running_on(twins):
        assert close(gradient(x), expected)
    assert twins.ran
