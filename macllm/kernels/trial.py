"""Tries kernels on this machine: whether they give what they must, and whether they are faster than what they replace.

Right is what a case's float64 reference says within the case's tolerance; at the sizes of a model, where that would
take minutes, the twin's result within what rounding explains. Faster is by the median of several rounds, in each of
which both take many calls that do not depend on one another, over copies that no cache holds: as a model runs them.
A trial never raises: a kernel that does, or that is wrong, is found out by it.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import mlx.core as mx

from macllm.kernels.kernel import Case, Kernel, Runner, Sample
from macllm.kernels.runners import compiled
from macllm.kernels.samples import TOLERANCES, as_float64, relative_error
from macllm.kernels.verdicts import FASTER, Status, Verdict, Verdicts, dtype_name
from macllm.kernels.workload import Workload

Clock: TypeAlias = Callable[[], float]

SHORT_S = 2.0  # of the first load on an unknown chip; with the start of its process it takes less than three
LONGEST_REASON = 300  # characters

_GROSS = 5e-3  # of the largest magnitude: what a twin in reduced precision (TF32) may be off by
_MOST_CALLS = 64  # of a round
_COLD_BYTES = 100e6  # more than the caches of any Apple GPU hold
_MOST_COPIES = 48
_LARGE = 2**20  # bytes of an array that is worth a copy


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    cases: int | None  # of each type, with labels of their own; None: all
    rounds: int
    round_s: float  # about how long one takes


FULL = Effort(cases=None, rounds=7, round_s=0.02)
SHORT = Effort(cases=3, rounds=3, round_s=0.005)


class _OutOfTime(Exception):
    """The budget is spent."""


class _Bad(Exception):
    """The kernel failed or is wrong."""

    def __init__(self, status: Status, reason: str, error: float = 0.0) -> None:
        super().__init__(reason)
        self.status, self.reason, self.error = status, reason, error


@dataclass(frozen=True)
class _Trial:
    """One kernel in one type under trial."""

    kernel: Kernel
    run: Runner
    work: Workload
    dtype: mx.Dtype
    effort: Effort
    clock: Clock
    deadline: float

    def verdicts(self) -> tuple[Verdict, ...]:
        """Raises _OutOfTime."""
        name, kind = self.kernel.name, dtype_name(self.dtype)
        try:
            error = max(map(self._check, self._cases()), default=0.0)
            timed = self._timed(error)
        except _Bad as bad:
            return (Verdict(name, kind, bad.status, bad.reason, bad.error),)
        return timed or (Verdict(name, kind, "right", error=error),)

    def _timed(self, error: float) -> tuple[Verdict, ...]:
        """Of each sample; where the time is over, of those that were done."""
        timed: list[Verdict] = []
        for sample in self._samples():
            try:
                timed.append(self._time(sample, error))
            except _OutOfTime:
                if timed:
                    break
                raise
        return tuple(timed)

    def _cases(self) -> Iterator[Case]:
        """Of this type, all or a few: one of a label, those of odd sizes first."""
        found = (case for case in self.kernel.cases() if case.dtype == self.dtype)
        for case in found if self.effort.cases is None else _oddest(found, self.effort.cases):
            self._keep_time()
            yield case

    def _samples(self) -> Iterator[Sample]:
        if self.kernel.samples is not None and self.dtype == self.work.dtype:
            yield from self.kernel.samples(self.work)

    def _keep_time(self) -> None:
        if self.clock() >= self.deadline:
            raise _OutOfTime

    def _check(self, case: Case) -> float:
        """The largest error of a case. Raises _Bad where it is too large."""
        found = self._found(case.arguments)
        expected = case.reference()
        if len(found) != len(expected):
            raise _Bad("wrong", f"gave {len(found)} arrays where {len(expected)} are due ({case.label})")
        error = max(map(relative_error, found, expected), default=0.0)
        return _judged(error, case.tolerance, f"{_times(case.shape)}, rows {case.rows}, {case.label}")

    def _found(self, arguments: Mapping[str, Any]) -> tuple[mx.array, ...]:
        try:
            found = self.kernel(self.run, **arguments)
            mx.eval(found)
        except Exception as error:
            raise _Bad("failed", reason_of(error)) from error
        return found

    def _time(self, sample: Sample, error: float) -> Verdict:
        """Raises _Bad where the kernel fails at this size or is grossly wrong."""
        self._keep_time()
        kernel, arguments = self.kernel, sample.arguments
        found, expected = self._found(arguments), kernel.twin(**arguments)
        for one, other in zip(found, expected, strict=True):
            if mx.issubdtype(other.dtype, mx.floating):
                bound = max(2 * TOLERANCES[self.dtype], _GROSS)
                off = relative_error(one, as_float64(other))
                _judged(off, bound, f"{_times(sample.shape)}, rows {sample.rows}, beside the twin")
        rival = kernel.rival or kernel.twin
        try:
            mine, theirs = self._race(
                self._calls(arguments),
                [lambda a=each: rival(**a) for each in _copies(sample.rival or arguments)],  # type: ignore[misc]
            )
        except _OutOfTime:
            raise
        except Exception as failure:
            raise _Bad("failed", reason_of(failure)) from failure
        status: Status = "faster" if mine > 0 and theirs / mine >= FASTER else "slower"
        kind = dtype_name(self.dtype)
        return Verdict(kernel.name, kind, status, "", error, sample.shape, sample.rows, mine, theirs)

    def _calls(self, arguments: Mapping[str, Any]) -> list[Callable[[], Any]]:
        """The kernel with copies of the arguments, called as dispatch calls it."""
        fixed = {name: value for name, value in arguments.items() if not isinstance(value, mx.array)}

        def call(arrays: Mapping[str, mx.array]) -> list[mx.array]:
            return list(self.kernel(self.run, **fixed, **arrays))

        function = compiled(call, self.run)
        copies = [
            {name: each[name] for name in arguments if name not in fixed} for each in _copies(arguments)
        ]
        return [partial(function, arrays) for arrays in copies]

    def _race(self, *runners: Sequence[Callable[[], Any]]) -> tuple[float, ...]:
        """Median seconds of a call of each, in turns, so that a chip that slows down slows all."""
        counts = []
        for calls in runners:
            self._seconds(calls, 1)  # compiles
            once = self._seconds(calls, 1)
            wanted = math.ceil(self.effort.round_s / once) if once > 0 else _MOST_CALLS
            counts.append(min(max(wanted, 1), _MOST_CALLS))
        rounds: list[list[float]] = [[] for _ in runners]
        for _ in range(self.effort.rounds):
            self._keep_time()
            for seconds, calls, count in zip(rounds, runners, counts, strict=True):
                seconds.append(self._seconds(calls, count) / count)
        return tuple(map(statistics.median, rounds))

    def _seconds(self, calls: Sequence[Callable[[], Any]], count: int) -> float:
        """Of ``count`` calls."""
        mx.synchronize()
        start = self.clock()
        mx.eval([calls[index % len(calls)]() for index in range(count)])
        mx.synchronize()
        return self.clock() - start


def trial(
    kernel: Kernel,
    run: Runner,
    work: Workload,
    *,
    effort: Effort = FULL,
    clock: Clock = time.perf_counter,
    deadline: float = math.inf,
) -> tuple[Verdict, ...]:
    """The verdicts on a kernel: on its cases in every type of its, timed in the type of ``work``.

    In the short form (an ``effort`` of few cases) in that type only. None of a type that the ``deadline`` of
    ``clock`` came before. Never raises.
    """
    found: tuple[Verdict, ...] = ()
    for dtype in kernel.dtypes:
        if effort.cases is None or dtype == work.dtype:
            try:
                found += _Trial(kernel, run, work, dtype, effort, clock, deadline).verdicts()
            except _OutOfTime:
                return found
            except Exception as error:  # of the twin or of the numbers to try it on: nothing is known then
                kind = dtype_name(dtype)
                found += (Verdict(kernel.name, kind, "failed", f"the trial broke: {reason_of(error)}"),)
    return found


def trials(
    kernels: Iterable[Kernel],
    run: Runner,
    work: Workload,
    *,
    effort: Effort = FULL,
    clock: Clock = time.perf_counter,
) -> Iterator[tuple[Kernel, tuple[Verdict, ...]]]:
    """The full form of each, as it is found."""
    for kernel in kernels:
        yield kernel, trial(kernel, run, work, effort=effort, clock=clock)


def short_trial(
    kernels: Iterable[Kernel],
    run: Runner,
    work: Workload,
    *,
    budget_s: float = SHORT_S,
    clock: Clock = time.perf_counter,
) -> Iterator[tuple[Kernel, tuple[Verdict, ...]]]:
    """The short form of each, as it is found, in the type and at the largest shapes of ``work``.

    Ends soon after ``budget_s``; what is left stays untried, but what had all the time and did not end is given up.
    """
    deadline, first = clock() + budget_s, True
    for kernel in kernels:
        found = trial(kernel, run, work.short(), effort=SHORT, clock=clock, deadline=deadline)
        if not found and not first:
            return
        reason = f"its trial did not end within {budget_s:g} s"
        yield kernel, found or (Verdict(kernel.name, dtype_name(work.dtype), "failed", reason),)
        first = False


def untried(kernels: Iterable[Kernel], dtype: mx.Dtype, known: Verdicts) -> list[Kernel]:
    """Those for ``dtype`` of which nothing is known, or only that they are right but not how fast."""
    return [
        kernel
        for kernel in kernels
        if dtype in kernel.dtypes
        and kernel.samples is not None
        and known.of(kernel, dtype).status in ("untried", "right")
    ]


def reason_of(error: BaseException) -> str:
    """The first line of an error, and the first that a compiler complains in."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[:1] + [line for line in lines[1:] if "error:" in line][:1]
    return (": ".join(said) or type(error).__name__)[:LONGEST_REASON]


def _oddest(cases: Iterable[Case], most: int) -> list[Case]:
    """Up to ``most``, each with a label of its own: those with the most odd sizes, where ends are cut short."""
    ranked = sorted(cases, key=lambda case: -sum(size % 2 for size in (*case.shape, case.rows)))
    by_label: dict[str, Case] = {}
    for case in ranked:
        by_label.setdefault(case.label, case)
    return list(by_label.values())[:most]


def _judged(error: float, tolerance: float, where: str) -> float:
    if error <= tolerance:
        return error
    what = f"is off by {error:.2g}" if math.isfinite(error) else "gives another shape or no number"
    raise _Bad("wrong", f"{what} where {tolerance:.2g} is allowed ({where})", error)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _copies(arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The same arguments, as often as it takes to have more bytes than a cache holds."""
    large = {
        name: value
        for name, value in arguments.items()
        if isinstance(value, mx.array) and value.nbytes >= _LARGE
    }
    total = sum(value.nbytes for value in large.values())
    count = min(math.ceil(_COLD_BYTES / total), _MOST_COPIES) if total else 1
    copies = [
        {name: value + mx.zeros((), value.dtype) for name, value in large.items()} for _ in range(count - 1)
    ]
    mx.eval(copies)
    return [arguments, *({**arguments, **copy} for copy in copies)]
