"""Whoever wants to know how a run goes, behind mlx-lm's interface: the same two methods, the same keys."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from macllm.engine.training_events import Trained, TrainingEvent, TrainStep, Validation

Info: TypeAlias = Mapping[str, Any]


class TrainingCallback:
    """As mlx-lm's tuner/callbacks.py has it; both do nothing here.

    Losses are in nats a token, ``peak_memory`` in GB (10^9 bytes), tokens are those that are no padding. Beside
    mlx-lm's keys there are ``grad_norm``, ``epoch``, ``supervised_tokens`` and the objective's figures of a step.
    """

    def on_train_loss_report(self, train_info: Info) -> None:
        """After every ``steps_per_report`` steps, with the mean of their losses."""

    def on_val_loss_report(self, val_info: Info) -> None:
        """After every look at the validation rows."""

    def close(self) -> None:
        """The run is over, however it ended."""


class CallbackFeed:
    """Tells ``callbacks`` of the events of a run that :meth:`take` is given, in order."""

    def __init__(
        self,
        callbacks: Sequence[TrainingCallback],
        steps_per_report: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._callbacks = tuple(callbacks)
        self._every = steps_per_report
        self._clock = clock
        self._steps: list[TrainStep] = []  # since the last report
        self._reported: TrainStep | None = None
        self._told_at = clock()

    def take(self, event: TrainingEvent) -> None:
        """One event. What a callback raises, this does."""
        match event:
            case TrainStep():
                self._steps.append(event)
                if event.step % self._every == 0 or event.step == event.steps:
                    self._report()
            case Validation():
                took = self._clock() - self._told_at
                info = {"iteration": event.step, "val_loss": event.loss, "val_time": took}
                for callback in self._callbacks:
                    callback.on_val_loss_report(info)
            case Trained() if self._steps:
                self._report()
        self._told_at = self._clock()

    def close(self) -> None:
        for callback in self._callbacks:
            callback.close()

    def _report(self) -> None:
        info = train_info(self._steps, self._reported)
        self._steps, self._reported = [], self._steps[-1]
        for callback in self._callbacks:
            callback.on_train_loss_report(info)


def train_info(steps: Sequence[TrainStep], before: TrainStep | None) -> dict[str, Any]:
    """What mlx-lm reports of ``steps``, at least one, the last report having been of ``before``."""
    last = steps[-1]
    since = before if before is not None else steps[0]
    # the first report of a run begins at zero; of one that went on, at its own first step
    zero = before is None and since.step == 1
    seconds = last.elapsed_s - (0.0 if zero else since.elapsed_s)
    count, tokens = (last.step, last.tokens) if zero else (last.step - since.step, last.tokens - since.tokens)
    if not count or seconds <= 0:
        count, seconds, tokens = last.step, last.elapsed_s or 1.0, last.tokens
    return {
        "iteration": last.step,
        "train_loss": math.fsum(step.loss for step in steps) / len(steps),
        "learning_rate": last.learning_rate,
        "iterations_per_second": count / seconds,
        "tokens_per_second": tokens / seconds,
        "trained_tokens": last.tokens,
        "peak_memory": last.peak_memory_bytes / 1e9,
        "grad_norm": last.grad_norm,
        "epoch": last.epoch,
        "supervised_tokens": last.supervised_tokens,
        **last.figures,
    }
