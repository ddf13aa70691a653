"""Would a bug be found? Each of a table of bugs is planted into a kernel, and must be reported by the build named."""

import re

import pytest
from mutant import Mutant
from mutants import MUTANTS
from small_kernels import SMALL, with_text

from macllm.kernels.harness.check import check, check_cases, edges
from macllm.kernels.kernel import Case, Kernel
from macllm.kernels.registry import KERNELS

QUICK = ("fast", "lint")  # the others take seconds to compile


def kernel_of(mutant: Mutant) -> Kernel:
    return SMALL.get(mutant.kernel) or KERNELS[mutant.kernel]


def planted(mutant: Mutant) -> Kernel:
    """The kernel with the bug in it."""

    def change(text: str) -> str:
        start = text.find(mutant.after)
        if start < 0 or mutant.text not in text[start:]:
            return text
        return text[:start] + text[start:].replace(mutant.text, mutant.replacement, 1)

    kernel = kernel_of(mutant)
    assert any(change(text) != text for text in (kernel.body.source, kernel.body.header)), (
        "the text has changed"
    )
    return with_text(kernel, change)


def cases_of(mutant: Mutant) -> list[Case]:
    found = list(kernel_of(mutant).cases())
    if mutant.label is not None:
        found = [case for case in found if case.label == mutant.label]
    found = [case for case in found if str(case.dtype).endswith(f".{mutant.dtype}")]
    return edges(found) if mutant.shape is None else [case for case in found if case.shape == mutant.shape]


def assert_reported(mutant: Mutant) -> None:
    rows = list(check_cases(planted(mutant), cases_of(mutant), mutant.build))
    reasons = [row.reason for row in rows if not row.ok]
    assert reasons, f"nothing reports: {mutant.bug}"
    assert any(re.search(mutant.report, reason) for reason in reasons), reasons[:3]


def parameters(*, quick: bool) -> list[object]:
    chosen = [mutant for mutant in MUTANTS if (mutant.build in QUICK) == quick]
    return [pytest.param(each, id=f"{each.kernel}-{each.build}-{each.bug}") for each in chosen]


@pytest.mark.parametrize("mutant", parameters(quick=True))
def test_a_planted_bug_is_reported(mutant: Mutant) -> None:
    assert_reported(mutant)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", parameters(quick=False))
def test_a_planted_bug_is_reported_by_a_watching_build(mutant: Mutant) -> None:
    assert_reported(mutant)


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 30
    assert len({(each.kernel, each.bug) for each in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_without_a_bug_nothing_is_reported(name: str) -> None:
    assert [(row.build, row.reason) for row in check([SMALL[name]]) if not row.ok] == []
