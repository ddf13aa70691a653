"""Every registered kernel, run as Metal on the CPU: all its cases in the fast build, its edges in the watching ones."""

import pytest

from macllm.kernels.harness.check import Row, check
from macllm.kernels.registry import KERNELS

WATCHING = ("address", "thread", "memory")


def assert_right(rows: list[Row]) -> None:
    assert rows
    wrong = [f"{row.label}, {row.dtype} {row.shape} x {row.rows}: {row.reason}" for row in rows if not row.ok]
    assert wrong == []


@pytest.mark.parametrize("name", KERNELS)
def test_every_case_is_right_in_every_order_of_threads(name: str) -> None:
    kernel = KERNELS[name]
    rows = list(check([kernel], ["fast"]))
    assert_right(rows)
    assert {row.dtype for row in rows} == {str(dtype).rpartition(".")[2] for dtype in kernel.dtypes}


@pytest.mark.parametrize("name", KERNELS)
def test_the_text_is_what_metal_allows(name: str) -> None:
    assert_right(list(check([KERNELS[name]], ["lint"])))


@pytest.mark.slow
@pytest.mark.parametrize("build", WATCHING)
@pytest.mark.parametrize("name", KERNELS)
def test_nothing_is_out_of_bounds_racing_or_uninitialised(name: str, build: str) -> None:
    assert_right(list(check([KERNELS[name]], [build])))
