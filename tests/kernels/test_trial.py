"""A trial finds out what a kernel is: right and faster, right and slower, wrong, or failing; and it never raises."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from stand_ins import Clock, fails_at_once, fails_when_computed, no_numbers, noting, right, wrong

from macllm.families import spec_from_config
from macllm.kernels import runners
from macllm.kernels.kernel import Kernel, Launch, Runner
from macllm.kernels.registry import KERNELS
from macllm.kernels.trial import SHORT, reason_of, short_trial, trial, trials, untried
from macllm.kernels.verdicts import Machine, Status, Verdict, Verdicts
from macllm.kernels.workload import MOST_WEIGHTS, Heads, Workload, of_spec, standard

SMALL = Workload(mx.float16, ((32, 256), (64, 512)), (Heads(4, 2, 64),), 256, rows=(1, 4), tokens=(64,))
KERNEL = noting(KERNELS["nf4_matvec"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


def timed(kernel: Kernel, run: Runner, clock: Clock, mine: float, theirs: float) -> tuple[Verdict, ...]:
    """A trial in which a call costs ``mine`` and one of the rival ``theirs`` seconds."""
    rival = clock.taking(theirs, kernel.twin)
    return trial(replace(kernel, rival=rival), clock.taking(mine, run), SMALL, effort=SHORT, clock=clock)


def test_right_and_faster(clock: Clock) -> None:
    found = timed(KERNEL, right, clock, 1e-3, 3e-3)
    assert [(each.shape, each.rows) for each in found] == [
        (shape, rows) for shape in SMALL.matrices for rows in SMALL.rows
    ]
    for each in found:
        assert each.status == "faster"
        assert each.kernel_s == pytest.approx(1e-3)
        assert each.ratio == pytest.approx(3)
        assert each.error < 1e-3


def test_right_and_slower_is_whatever_is_not_clearly_faster(clock: Clock) -> None:
    assert {each.status for each in timed(KERNEL, right, clock, 3e-3, 1e-3)} == {"slower"}
    assert {each.status for each in timed(KERNEL, right, clock, 1e-3, 1.01e-3)} == {"slower"}
    assert {each.status for each in timed(KERNEL, right, clock, 1e-3, 1.03e-3)} == {"faster"}


@pytest.mark.parametrize(
    ("run", "status", "words"),
    [
        (wrong, "wrong", ["is off by", "rows 1", "magnitudes"]),
        (no_numbers, "wrong", ["gives another shape or no number"]),
        (lambda launch: [right(launch)[0][:, :-1]], "wrong", ["another shape"]),
        (lambda launch: right(launch) * 2, "wrong", ["gave 2 arrays where 1 are due"]),
        (fails_at_once, "failed", ["Unable to build metal library from source", "error: no nf4_matvec"]),
        (fails_when_computed, "failed", ["LU factorization failed"]),
    ],
)
def test_what_is_not_right_has_one_verdict_with_its_reason(
    run: Runner, status: str, words: list[str], clock: Clock
) -> None:
    found = timed(KERNEL, run, clock, 1e-3, 3e-3)
    assert [each.status for each in found] == [status]
    assert all(word in found[0].reason for word in words), found[0].reason
    assert "\n" not in found[0].reason
    assert not found[0].good


def test_an_error_at_a_models_size_is_found_although_all_cases_pass(clock: Clock) -> None:
    def run(launch):
        return right(launch) if launch.output_shapes[0] != (4, 64) else wrong(launch)

    wide = replace(SMALL, rows=(4,), matrices=((64, 512),))
    found = trial(KERNEL, run, wide, effort=SHORT, clock=clock)
    assert [each.status for each in found] == ["wrong"]
    assert "64 x 512, rows 4, beside the twin" in found[0].reason


def test_a_failure_only_at_a_models_size_is_a_failure(clock: Clock) -> None:
    def run(launch):
        return right(launch) if launch.output_shapes[0] != (4, 64) else fails_at_once(launch)

    found = trial(KERNEL, run, SMALL, effort=SHORT, clock=clock)
    assert [each.status for each in found] == ["failed"]


def test_one_type_may_be_wrong_and_another_right(clock: Clock) -> None:
    def run(launch):
        return wrong(launch) if launch.output_dtypes[0] == mx.bfloat16 else right(launch)

    found = {each.dtype: each.status for each in trial(KERNEL, run, SMALL, clock=clock)}
    assert found == {"float32": "right", "float16": "slower", "bfloat16": "wrong"}  # only one is timed


def test_the_rivals_failure_is_no_reason_to_raise(clock: Clock) -> None:
    def rival(**arguments):
        raise ValueError("no such mode")

    found = trial(replace(KERNEL, rival=rival), right, SMALL, effort=SHORT, clock=clock)
    assert [each.status for each in found] == ["failed"]
    assert "no such mode" in found[0].reason


def test_cases_that_cannot_be_made_are_no_reason_to_raise(clock: Clock) -> None:
    def cases():
        raise ValueError("no numbers today")
        yield

    found = trial(replace(KERNEL, cases=cases), right, SMALL, effort=SHORT, clock=clock)
    assert [(each.status, each.reason) for each in found] == [("failed", "the trial broke: no numbers today")]


def test_a_kernel_without_samples_is_right_at_most(clock: Clock) -> None:
    found = trial(replace(KERNEL, samples=None), right, SMALL, effort=SHORT, clock=clock)
    assert [each.status for each in found] == ["right"]


def test_the_budget_ends_a_trial_without_a_verdict(clock: Clock) -> None:
    found = trial(KERNEL, clock.taking(1, right), SMALL, effort=SHORT, clock=clock, deadline=clock.now + 5)
    assert found == ()
    assert clock.now < 100 + 5 + 2  # one check more at most


def known(*verdicts: Verdict) -> Verdicts:
    made = Verdicts.load(Machine("Apple M9", "macOS 30", "1", "1"))
    made.record(KERNEL, verdicts)
    return made


def test_what_was_timed_when_the_time_is_over_counts(clock: Clock) -> None:
    whole = timed(KERNEL, right, clock, 0.1, 0.2)
    took = clock.now - 100
    again = Clock()
    found = trial(
        replace(KERNEL, rival=again.taking(0.2, KERNEL.twin)),
        again.taking(0.1, right),
        SMALL,
        effort=SHORT,
        clock=again,
        deadline=again.now + took / 2,
    )
    assert 0 < len(found) < len(whole)
    assert [(each.shape, each.rows) for each in found] == [(each.shape, each.rows) for each in whole][
        : len(found)
    ]


def test_the_short_trial_stops_when_its_time_is_over(clock: Clock) -> None:
    kernels = [noting(kernel) for kernel in KERNELS.values()]
    began = clock.now
    found = list(short_trial(kernels, clock.taking(0.15, right), SMALL, budget_s=3, clock=clock))
    assert 0 < len(found) < len(kernels)
    assert [kernel for kernel, _ in found] == kernels[: len(found)]
    assert all(each.good for _, verdicts in found for each in verdicts)
    assert clock.now - began < 3 + 64 * 0.15  # a round that has begun is ended


def test_the_short_trial_is_of_one_type_and_few_shapes(clock: Clock) -> None:
    ((_, found),) = short_trial([KERNEL], right, SMALL, clock=clock)
    assert [(each.dtype, each.shape, each.rows) for each in found] == [
        ("float16", (64, 512), 1),
        ("float16", (64, 512), 4),
    ]


def test_a_kernel_whose_trial_does_not_end_is_given_up(clock: Clock) -> None:
    kernels = [KERNEL, noting(KERNELS["nf4_dequantize"])]
    found = list(short_trial(kernels, clock.taking(2, right), SMALL, budget_s=3, clock=clock))
    assert [kernel for kernel, _ in found] == [KERNEL]  # the other's turn is the next time
    assert found[0][1][0].reason == "its trial did not end within 3 s"


def test_the_full_form_is_of_every_type(clock: Clock) -> None:
    ((_, found),) = trials([noting(KERNELS["nf4_dequantize"])], right, SMALL, clock=clock)
    assert {each.dtype for each in found} == {"float32", "float16", "bfloat16"}
    assert {each.shape for each in found if each.dtype == "float16"} == set(SMALL.matrices)


@pytest.mark.parametrize(
    ("status", "expected"),
    [("faster", False), ("slower", False), ("wrong", False), ("failed", False), ("right", True)],
)
def test_what_is_known_is_not_tried_again(status: Status, expected: bool) -> None:
    verdicts = known(Verdict(KERNEL.name, "float16", status))
    assert bool(untried([KERNEL], mx.float16, verdicts)) == expected
    assert untried([KERNEL], mx.bfloat16, verdicts)
    assert not untried([replace(KERNEL, samples=None)], mx.bfloat16, verdicts)


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_can_be_timed_at_the_sizes_of_a_model(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.samples is not None
    samples = list(kernel.samples(SMALL))
    assert samples
    for sample in samples:
        launch = noting(kernel).bind(**sample.arguments)
        assert kernel.rows[0] <= sample.rows <= kernel.rows[1]
        found = right(launch)  # asserts shapes and types
        if kernel.rival is not None:
            rival = kernel.rival(**(sample.rival or sample.arguments))
            assert [array.shape for array in rival] == [array.shape for array in found]


def test_a_workload_is_the_models_shapes_once_each() -> None:
    config = json.loads((Path(__file__).parent.parent / "configs" / "llama-3.1-8b.json").read_text())
    work = of_spec(spec_from_config(config), mx.float16)
    assert set(standard(mx.float16).matrices) <= set(work.matrices)
    assert len(set(work.matrices)) == len(work.matrices)
    assert work.heads == standard(mx.float16).heads
    assert work.dim == 4096
    assert max(rows * columns for rows, columns in work.matrices) <= MOST_WEIGHTS


def test_the_short_form_of_a_workload_is_one_of_each() -> None:
    short = standard(mx.float16).short()
    assert len(short.matrices) == len(short.heads) == len(short.tokens) == 1
    assert short.rows == (1, 8)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("one\ntwo"), "one"),
        (RuntimeError(""), "RuntimeError"),
        (
            RuntimeError("[metal] no\n\nprogram_source:3:5: error: bad"),
            "[metal] no: program_source:3:5: error: bad",
        ),
        (RuntimeError("x" * 1000), "x" * 300),
    ],
)
def test_a_reason_is_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, with which MLX compiles for a CPU")
def test_on_the_device_a_kernel_is_timed_compiled_as_it_is_called(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, ...]] = []

    def run(launch: Launch) -> list[mx.array]:
        ran.append(launch.output_shapes[0])
        return right(launch)

    monkeypatch.setattr(runners, "device_runner", lambda: run)
    found = trial(KERNEL, run, SMALL, effort=SHORT, clock=clock)
    timed_calls = [(rows, outputs) for outputs, _ in SMALL.matrices for rows in SMALL.rows]
    assert [each.kernel for each in found] == [KERNEL.name] * len(timed_calls)
    # each once to be compared and once to be compiled
    assert ran[-2 * len(timed_calls) :] == [shape for shape in timed_calls for _ in range(2)]


def test_the_clock_moves_on_its_own_too() -> None:
    found = trial(KERNEL, right, SMALL, effort=SHORT)
    assert all(each.kernel_s > 0 and math.isfinite(each.ratio) for each in found)
