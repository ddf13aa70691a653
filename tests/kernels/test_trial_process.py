"""Trials in another process: what it finds arrives, and a kernel that takes it down is found out."""

import sys
from pathlib import Path

import mlx.core as mx
import pytest

from macllm.kernels import trial_process
from macllm.kernels.trial_process import Order, TrialProcess
from macllm.kernels.workload import Heads, Workload, standard

SMALL = Workload(mx.float16, ((32, 256),), (Heads(4, 2, 64),), 256, rows=(1,), tokens=(64,))
NAMES = ("nf4_matvec", "nf4_dequantize")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be busy with other tests."""
    monkeypatch.setattr(trial_process, "SHORT_START_PATIENCE_S", 60.0)


def statuses(kind: str, *, short: bool = True) -> dict[str, set[tuple[str, str]]]:
    """By kernel: status and reason of its verdicts in float16."""
    command = (sys.executable, str(Path(__file__).parent.parent / "trial_worker.py"), kind)
    found = TrialProcess(Order(NAMES, SMALL, short), command).found()
    return {
        kernel.name: {(each.status, each.reason) for each in verdicts if each.dtype == "float16"}
        for kernel, verdicts in found
    }


def test_an_order_crosses_the_line_whole() -> None:
    order = Order(NAMES, standard(mx.bfloat16), short=True)
    assert Order.of_text(order.as_text()) == order


def test_what_is_found_arrives() -> None:
    found = statuses("right")
    assert list(found) == list(NAMES)
    assert {status for each in found.values() for status, _ in each} <= {"faster", "slower"}


@pytest.mark.parametrize(("kind", "status"), [("wrong", "wrong"), ("fails", "failed")])
def test_what_is_bad_arrives_with_its_reason(kind: str, status: str) -> None:
    found = statuses(kind)
    assert list(found) == list(NAMES)
    for each in found.values():
        ((said, reason),) = each
        assert said == status
        assert reason


def test_a_kernel_that_ends_the_process_has_failed() -> None:
    found = statuses("dies")
    assert found == {
        "nf4_matvec": {("failed", "it ended its process (signal 6): libc++abi: terminating")}
    }  # the other stays untried until the next time


def test_in_full_another_process_tries_the_rest() -> None:
    found = statuses("dies", short=False)
    assert list(found) == list(NAMES)
    assert {status for status, _ in found["nf4_dequantize"]} <= {"faster", "slower"}


def test_a_kernel_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_process, "SHORT_PATIENCE_S", 1.0)
    assert statuses("hangs") == {"nf4_matvec": {("failed", "it did not end within 1 s")}}


@pytest.mark.parametrize("kind", ["broken", "none"])
def test_no_kernel_is_to_blame_where_none_was_tried(kind: str) -> None:
    assert statuses(kind) == {}


@pytest.mark.skipif(mx.metal.is_available() or mx.cuda.is_available(), reason="needs Linux without a GPU")
def test_the_real_command_finds_nothing_where_there_is_no_gpu() -> None:
    assert list(TrialProcess(Order(NAMES, SMALL, short=True)).found()) == []
