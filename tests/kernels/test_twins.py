"""Every kernel's twin, which defines it: right against float64 on all its cases, and part of a differentiable whole."""

import mlx.core as mx
import pytest

from macllm.kernels.kernel import Case
from macllm.kernels.registry import KERNELS
from macllm.kernels.samples import relative_error


@pytest.mark.parametrize("name", KERNELS)
def test_a_twin_gives_what_float64_gives(name: str) -> None:
    kernel = KERNELS[name]
    for case in kernel.cases():
        found = kernel.twin(**case.arguments)
        for output, expected in zip(found, case.reference(), strict=True):
            error = relative_error(output, expected)
            assert error <= case.tolerance, (
                f"{case.label}, {case.dtype}, {case.shape}, {case.rows} rows: {error}"
            )


@pytest.mark.parametrize("name", KERNELS)
def test_a_launch_gives_the_twins_shapes_and_types(name: str) -> None:
    kernel = KERNELS[name]
    for case in kernel.cases():
        launch, twin = kernel.bind(**case.arguments), kernel.twin(**case.arguments)
        assert launch.output_shapes == tuple(tuple(output.shape) for output in twin)
        assert launch.output_dtypes == tuple(output.dtype for output in twin)
        assert len(launch.inputs) == len(launch.body.inputs)
        assert len(launch.output_shapes) == len(launch.body.outputs)


@pytest.mark.parametrize("name", KERNELS)
def test_the_cases_cover_what_a_kernel_is_declared_for(name: str) -> None:
    kernel = KERNELS[name]
    cases: list[Case] = list(kernel.cases())
    assert {case.dtype for case in cases} == set(kernel.dtypes)
    assert all(kernel.rows[0] <= case.rows <= kernel.rows[1] for case in cases)
    keys = [(case.label, case.dtype, case.shape, case.rows) for case in cases]
    assert len(set(keys)) == len(keys), "two cases that nobody could tell apart"


@pytest.mark.parametrize("name", KERNELS)
def test_the_same_cases_come_every_time(name: str) -> None:
    first, second = (next(iter(KERNELS[name].cases())) for _ in range(2))
    for key, value in first.arguments.items():
        if isinstance(value, mx.array):
            assert mx.array_equal(value, second.arguments[key])


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_bound_within_a_compiled_function_as_outside(name: str) -> None:
    kernel, case = KERNELS[name], next(iter(KERNELS[name].cases()))
    arrays = {key: value for key, value in case.arguments.items() if isinstance(value, mx.array)}

    def inputs(*given: mx.array) -> list[mx.array]:
        arguments = {**case.arguments, **dict(zip(arrays, given, strict=True))}
        return list(kernel.bind(**arguments).inputs)

    inside, outside = mx.compile(inputs)(*arrays.values()), inputs(*arrays.values())
    assert all(mx.array_equal(one, other) for one, other in zip(inside, outside, strict=True))
