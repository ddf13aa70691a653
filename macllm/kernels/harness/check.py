"""The cases of kernels in the harness, as rows of a table: what was run, in which build, and how near it came."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from macllm.kernels.harness.compile import BUILDS
from macllm.kernels.harness.run import Outcome, outcomes
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
    for kernel in kernels:
        cases = list(kernel.cases())
        for build in builds:
            yield from check_cases(kernel, cases if build == "fast" else edges(cases), build)


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
