"""A trial with the Metal text itself as what runs, on the CPU: right where it is, found out where a bug is planted."""

import mlx.core as mx
import pytest
from small_kernels import with_text

from macllm.kernels.harness.run import runner
from macllm.kernels.kernel import Kernel
from macllm.kernels.registry import KERNELS
from macllm.kernels.trial import Effort, trial
from macllm.kernels.verdicts import Verdict
from macllm.kernels.workload import Heads, Workload

WORK = Workload(mx.float16, ((24, 256),), (Heads(4, 2, 64),), 256, rows=(2,), tokens=(64,))
EFFORT = Effort(cases=1, rounds=1, round_s=0.0)


def tried(kernel: Kernel) -> tuple[Verdict, ...]:
    return trial(kernel, runner(), WORK, effort=EFFORT)


@pytest.mark.parametrize("name", ["nf4_matvec", "q6_k_matvec", "skinny_affine4", "add_norm"])
def test_a_right_text_is_right_and_slower_on_a_cpu(name: str) -> None:
    found = tried(KERNELS[name])
    assert found
    assert {each.status for each in found} == {"slower"}, found


@pytest.mark.parametrize(
    ("text", "instead", "status", "reason"),
    [
        ("word >>= 4;", "word >>= 5;", "wrong", "is off by"),
        ("if (lane == 0 && first + r < N)", "if (lane == 0)", "failed", "out of bounds"),
        ("float magnitude;", "float magnitude", "failed", "error:"),
    ],
)
def test_a_planted_bug_is_found_out(text: str, instead: str, status: str, reason: str) -> None:
    kernel = with_text(KERNELS["nf4_matvec"], lambda source: source.replace(text, instead))
    assert [each.status for each in tried(kernel)] == [status]
    assert reason in tried(kernel)[0].reason
