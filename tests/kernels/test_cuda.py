"""The same bodies as CUDA: NVRTC compiles every portable one. Nothing runs: that needs a GPU."""

from collections.abc import Iterator

import pytest
from nvrtc import complaints, toolkit, whole_text

from macllm.kernels import cuda_text
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


def test_a_body_that_is_not_portable_is_never_run_as_cuda() -> None:
    """Nothing is promised of it: simdgroup_matrix has no counterpart under these macros."""
    for kernel in KERNELS.values():
        names = ("simdgroup_matrix", "simdgroup_multiply")
        used = any(name in kernel.body.source + kernel.body.header for name in names)
        assert not (used and kernel.body.portable), kernel.name
