"""The process of trials with a stand-in for the device: ``python trial_worker.py KIND ORDER``."""

import os
import signal
import sys
import time
from functools import partial

import mlx.core as mx
from stand_ins import fails_at_once, noting, right, wrong

from macllm.kernels import trial_process
from macllm.kernels.kernel import Launch
from macllm.kernels.trial import Effort, trials

QUICK = Effort(cases=None, rounds=1, round_s=0.0)


def dies(launch: Launch) -> list[mx.array]:
    """As a library does that gives up on all: no exception passes."""
    if launch.body.name == "nf4_matvec":
        print("libc++abi: terminating", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    return right(launch)


def hangs(launch: Launch) -> list[mx.array]:
    if launch.body.name == "nf4_matvec":
        time.sleep(3600)
    return right(launch)


def main() -> None:
    kind, text = sys.argv[1:]
    if kind == "broken":
        sys.exit("no module named anything")
    run = {"right": right, "wrong": wrong, "fails": fails_at_once, "dies": dies, "hangs": hangs}.get(kind)
    trial_process.KERNELS = {name: noting(kernel) for name, kernel in trial_process.KERNELS.items()}
    trial_process.runner = lambda: run
    trial_process.trials = partial(trials, effort=QUICK)
    trial_process.main(trial_process.Order.of_text(text))


if __name__ == "__main__":
    main()
