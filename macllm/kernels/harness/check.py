"""The cases of kernels in the harness, as rows of a table: what was run, in which build, and how near it came."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from macllm.kernels.harness.compile import BUILDS, executable
from macllm.kernels.harness.run import Outcome, outcomes, sources
from macllm.kernels.kernel import Case, Kernel
from macllm.kernels.samples import relative_error


@dataclass(frozen=True)
class Row:
    """One case in one build. ``max_rel_error`` is None where there is nothing to compare: a lint, or a fault."""

    kernel: str
    label: str
    dtype: str
    shape: tuple[int, ...]
    rows: int
    build: str
    max_rel_error: float | None
    ok: bool
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check(kernels: Iterable[Kernel], builds: Sequence[str] = BUILDS) -> Iterator[Row]:
    """Rows of every kernel and build, as they come. The fast build runs all cases, the others :func:`edges`."""
    work: list[tuple[Kernel, Sequence[Case], str]] = []
    for kernel in kernels:
        cases = list(kernel.cases())
        work += [(kernel, cases if build == "fast" else edges(cases), build) for build in builds]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:  # every processor compiles what will be run one after the other
        ahead = [_compiling(pool, *each) for each in work]
        for each, compiling in zip(work, ahead, strict=True):
            wait(compiling)
            yield from check_cases(*each)
    finally:
        pool.shutdown(cancel_futures=True)


def _compiling(pool: Executor, kernel: Kernel, cases: Sequence[Case], build: str) -> list[Future[Path]]:
    """What is compiled for some cases. An error is met again, and told, where they are run."""
    if build == "lint":
        return []
    texts = sources([kernel.bind(**case.arguments) for case in cases])
    return [pool.submit(executable, text, build) for text in texts]


def check_cases(kernel: Kernel, cases: Sequence[Case], build: str) -> Iterator[Row]:
    """A row for each of ``cases``, which share one compilation."""
    found = outcomes([kernel.bind(**case.arguments) for case in cases], build)
    for case, outcome in zip(cases, found, strict=True):
        error, reason = _compared(case, outcome)
        dtype = str(case.dtype).rpartition(".")[2]
        yield Row(kernel.name, case.label, dtype, case.shape, case.rows, build, error, not reason, reason)


def edges(cases: Iterable[Case]) -> list[Case]:
    """The cases for builds that are slow to compile: the smallest of each label and type."""
    smallest: dict[tuple[str, str], Case] = {}
    for case in cases:
        key = (case.label, str(case.dtype))
        if key not in smallest or _work(case) < _work(smallest[key]):
            smallest[key] = case
    return list(smallest.values())


def _work(case: Case) -> int:
    return math.prod(case.shape) * case.rows


def _compared(case: Case, outcome: Outcome) -> tuple[float | None, str]:
    """The largest relative error of the outputs, and why the case is not right; nothing where it is."""
    if outcome.fault:
        return None, outcome.fault
    if not outcome.outputs:
        return None, ""
    pairs = zip(outcome.outputs, case.reference(), strict=True)
    error = max(relative_error(found, expected) for found, expected in pairs)
    if math.isinf(error):
        return None, "a result is not finite, or has another shape than expected"
    if error > case.tolerance:
        return error, f"the relative error {error:.2e} is above {case.tolerance:.2e}"
    return error, ""
