"""The same bodies as CUDA: NVRTC compiles every portable one. Nothing runs: that needs a GPU."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest
from nvrtc import complaints, toolkit, whole_text

from macllm.kernels import cuda_text, runners
from macllm.kernels.kernel import Kernel, Launch
from macllm.kernels.registry import KERNELS

PORTABLE = [name for name, kernel in KERNELS.items() if kernel.body.portable]
compiled = pytest.mark.skipif(
    toolkit() is None, reason="needs CUDA: NVRTC's packages are not installed (group peers)"
)


def launches(kernel: Kernel) -> Iterator[Launch]:
    """One for each type and each kind of case."""
    seen = set()
    for case in kernel.cases():
        launch = kernel.bind(**case.arguments)
        flags = tuple((k, v) for k, v in launch.template.items() if isinstance(v, bool))
        kind = (case.dtype, flags, cuda_text.is_partial(launch))
        if kind not in seen:
            seen.add(kind)
            yield launch


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("name", PORTABLE)
def test_every_portable_body_compiles_as_cuda(name: str) -> None:
    assert complaints(whole_text(list(launches(KERNELS[name])))) == ""


@pytest.mark.slow
@compiled
def test_what_is_not_cuda_is_complained_of() -> None:
    launch = next(launches(KERNELS["nf4_matvec"]))
    assert "identifier" in complaints(whole_text([launch]).replace("= simd_sum(", "= simd_total("))


def test_threads_beyond_the_grid_end_at_once() -> None:
    """Metal starts the threads of a grid, CUDA whole blocks: a body that relies on the first must not see the rest."""
    kernel = KERNELS["nf4_dequantize"]
    for case in kernel.cases():
        launch = kernel.bind(**case.arguments)
        partial = any(side % block for side, block in zip(launch.grid, launch.threadgroup, strict=True))
        assert cuda_text.is_partial(launch) == partial
        source = cuda_text.source(launch.body, partial=partial)
        template = cuda_text.template(launch)
        assert ("macllm_place.x >= GRID_X" in source) == partial
        assert (template.get("GRID_X") == launch.grid[0]) == partial
        assert source.endswith(launch.body.source)


@pytest.mark.parametrize("name", PORTABLE)
def test_threads_that_need_each_other_are_never_cut_off(name: str) -> None:
    """On CUDA a lane or thread that has ended must not be waited for or asked."""
    kernel = KERNELS[name]
    text = kernel.body.source + kernel.body.header
    if "simd_" in text or "_barrier(" in text:
        assert not any(cuda_text.is_partial(kernel.bind(**case.arguments)) for case in kernel.cases())


def test_a_body_that_is_not_portable_is_never_run_as_cuda() -> None:
    """Nothing is promised of it: simdgroup_matrix has no counterpart under these macros."""
    for kernel in KERNELS.values():
        names = ("simdgroup_matrix", "simdgroup_multiply")
        used = any(name in kernel.body.source + kernel.body.header for name in names)
        assert not (used and kernel.body.portable), kernel.name


def test_a_name_tells_every_other_text_apart() -> None:
    """MLX's cache on disk goes by name and template arguments."""
    texts: dict[object, str] = {}
    for kernel in KERNELS.values():
        if not kernel.body.portable:
            continue
        for launch in launches(kernel):
            key = (cuda_text.name(launch), tuple(map(str, cuda_text.template(launch).items())))
            text = whole_text([launch])
            assert texts.setdefault(key, text) == text


def test_a_launch_is_handed_to_mlx_with_its_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no CUDA device ``mx.fast.cuda_kernel`` refuses, so here it is only listened to."""
    made: list[dict[str, Any]] = []
    called: list[dict[str, Any]] = []

    def cuda_kernel(**given: Any) -> Any:
        made.append(given)
        return lambda **arguments: called.append(arguments) or []

    monkeypatch.setattr(mx.fast, "cuda_kernel", cuda_kernel)
    kernel = KERNELS["nf4_dequantize"]
    odd = next(launch for launch in launches(kernel) if cuda_text.is_partial(launch))
    runners.cuda(odd)
    runners.cuda(odd)
    assert len(made) == 1  # compiled once
    assert made[0]["source"] == cuda_text.source(odd.body, partial=True)
    assert "__syncthreads" in made[0]["header"]
    assert dict(called[0]["template"])["GRID_X"] == odd.grid[0]
    assert called[0]["grid"] == odd.grid
    assert called[0]["output_shapes"] == list(odd.output_shapes)
