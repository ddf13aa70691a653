"""The steps of a run: batches to updates, looks at the validation rows, saves, and when to stop.

Whatever decides what comes next is in :class:`macllm.tune.state.Progress`, or follows from the seed and the number of
the step: so a run that goes on is the run that was not stopped, bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import mlx.core as mx
import numpy as np

from macllm.engine.failure import ran_out_of_memory
from macllm.engine.loading import Loaded
from macllm.engine.training_events import (
    Sample,
    Saved,
    Trained,
    TrainingEvent,
    TrainStep,
    Validation,
)
from macllm.errors import Cancelled, MacllmError, MemoryLimitError
from macllm.nn.adapted import seed_dropout
from macllm.nn.decoder import Decoder
from macllm.tune import learned, state
from macllm.tune.batches import Batch, Batches, Position
from macllm.tune.curve import write_curve
from macllm.tune.metrics_file import MetricsFile, Row
from macllm.tune.optimizers import Optimizer
from macllm.tune.parallel import ALONE, World
from macllm.tune.samples import sampled
from macllm.tune.schedules import learning_rate
from macllm.tune.setup import Setup
from macllm.tune.state import Progress
from macllm.tune.step import Outcome, optimizer_step
from macllm.tune.trained import number
from macllm.tune.watch import PATIENCE, WINDOW, far
from macllm.units import size

_DROPOUT = 0xD809  # of the seed: what is left out must not follow from the order of the rows


class Diverged(MacllmError):
    """A run has gone astray and was stopped; the last good state is kept."""


@dataclass
class _Taken:
    """What a step's batches held."""

    tokens: int
    supervised: int
    after: Position
    batches: int = 0


class Loop:
    """A run over a loaded model whose method is attached."""

    def __init__(
        self, setup: Setup, loaded: Loaded, model: Decoder, optimizer: Optimizer, world: World = ALONE
    ) -> None:
        self._setup = setup
        self._loaded = loaded
        self._model = model
        self._optimizer = optimizer
        self._world = world
        seed = int(setup.settings["seed"])
        self.progress = setup.saved.progress if setup.saved is not None else Progress(Position(seed))
        self._metrics = MetricsFile(setup.job.folder)
        self._saved_step = self.progress.step if setup.saved is not None else None
        self._train_loss = math.nan
        self._figures: dict[str, float] = {}  # of the last look, beside its loss
        self._told: dict[str, float] = {}  # of the last step

    def run(self, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        """All steps that are left. ``cancelled`` is asked after each: the run is saved and ends.

        Raises Cancelled before the first of all; Diverged, MemoryLimitError, or MacllmError where something cannot
        be written.
        """
        if self._world.first:
            self._metrics.begin(self.progress.step)
        mx.reset_peak_memory()
        if self.progress.step == 0:
            yield from self._first_look(cancelled)
        elif self.progress.best_step == self.progress.step:
            self._write_learned()
        batches = iter(Batches(self._setup.data.train, self._setup.batching, self.progress.position))
        reason: Literal["finished", "early_stop", "stopped"] = "finished"
        while self.progress.step < self._setup.steps:
            event = self._step(batches)
            yield event
            look = self._is_due("steps_per_eval")
            found = self._validated() if look else None
            self._write_row(event, found)
            if found is not None:
                yield found
                yield from self._samples()
            if not self.progress.astray and (look or self._is_due("save_every")):
                yield self._save()
            if found is not None and found.best:
                self._write_learned()  # after the save: a run that is killed between goes on from here
            if found is not None and self._waited_enough():
                reason = "early_stop"
                break
            if self._world.any(cancelled()) and self.progress.step < self._setup.steps:
                reason = "stopped"
                if self._saved_step != self.progress.step:
                    yield self._save()
                break
        yield Trained(
            reason,
            self.progress.step,
            str(self._setup.job.folder),
            self._train_loss,
            self.progress.best,
        )

    # -- a step ------------------------------------------------------------------------------------------

    def _step(self, batches: Iterator[Batch]) -> TrainStep:
        setup, before = self._setup, self.progress
        rate = learning_rate(setup.schedule, float(setup.settings["learning_rate"]), before.step)
        count = min(int(setup.settings["grad_accumulation_steps"]), setup.batches - before.batches)
        taken = _Taken(0, 0, before.position)
        start = time.perf_counter()
        try:
            outcome = optimizer_step(
                self._model,
                self._optimizer,
                self._ready(list(islice(batches, count)), taken),
                self._loss,
                rate,
                self._world,
            )
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            raise MemoryLimitError(self._out_of_memory()) from error
        finally:
            self._model.eval()
        if not outcome.applied:
            if not before.astray and before.step and self._saved_step != before.step:
                self._save()  # the update was not made: this is the last good state
            raise Diverged(self._diverged(f"step {before.step + 1}: {outcome.why}"))
        seconds = time.perf_counter() - start
        self._train_loss = outcome.loss
        strays = setup.objective.watched and far(outcome.loss, before.calm)
        self.progress = replace(
            before,
            position=taken.after,
            step=before.step + 1,
            batches=before.batches + taken.batches,
            tokens=before.tokens + taken.tokens,
            supervised=before.supervised + taken.supervised,
            calm=before.calm if strays else (*before.calm, outcome.loss)[-WINDOW:],
            astray=before.astray + 1 if strays else 0,
            seconds=before.seconds + seconds,
        )
        if self.progress.astray >= PATIENCE:
            usual = sorted(before.calm)[len(before.calm) // 2]
            told = f"the loss is {outcome.loss:.3g} and was far above {usual:.3g} for {PATIENCE} steps"
            raise Diverged(self._diverged(f"step {self.progress.step}: {told}"))
        return self._event(outcome, rate, taken.tokens / seconds)

    def _ready(self, batches: Sequence[Batch], taken: _Taken) -> Iterator[Batch]:
        """This process's share of each batch of a step when its turn has come, and what all of them held."""
        objective, step = self._setup.objective, self.progress.step
        made = objective.ready_step(self._model, batches, step)
        self._told = _means(objective.told(batch) for batch in made)
        taken.tokens = sum(batch.tokens for batch in made)
        taken.supervised = sum(batch.supervised for batch in made)
        taken.after, taken.batches = batches[-1].after, len(batches)
        self._model.train()
        for index, batch in enumerate(made):
            share = self._world.share(batch, objective.together)
            if share is None:
                continue
            chance = np.random.PCG64([int(self._setup.settings["seed"]), _DROPOUT, step, index]).random_raw()
            seed_dropout(self._model, mx.random.key(int(chance)))
            yield share

    def _loss(self, batch: Batch) -> tuple[mx.array, int]:
        checkpoint = bool(self._setup.settings["grad_checkpoint"])
        return self._setup.objective.loss(self._model, batch, checkpoint=checkpoint)

    def _event(self, outcome: Outcome, rate: float, tokens_per_s: float) -> TrainStep:
        now, steps = self.progress, self._setup.steps
        return TrainStep(
            step=now.step,
            steps=steps,
            loss=outcome.loss,
            learning_rate=rate,
            grad_norm=outcome.grad_norm,
            tokens=now.tokens,
            tokens_per_s=tokens_per_s,
            memory_bytes=mx.get_active_memory(),
            peak_memory_bytes=mx.get_peak_memory(),
            elapsed_s=now.seconds,
            eta_s=now.seconds / now.step * (steps - now.step),
            epoch=now.batches / self._setup.per_epoch,
            supervised_tokens=now.supervised,
            figures=self._told,
        )

    # -- looks at the validation rows --------------------------------------------------------------------

    def _is_due(self, every: str) -> bool:
        step = self.progress.step
        return step % int(self._setup.settings[every]) == 0 or step == self._setup.steps

    def _first_look(self, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        """What the base comes to, before anything is learned: so there is nothing to save where it is stopped."""
        found = self._validation_loss(cancelled)
        row = Row(0, 0.0, None, found[0], None, None, 0, 0, None, mx.get_peak_memory(), 0.0)
        if self._world.first:
            self._metrics.add(row, **found[1])
        yield Validation(0, found[0], best=False)
        yield from self._samples()
        self._go_on_unless(cancelled)

    def _go_on_unless(self, cancelled: Callable[[], bool]) -> None:
        if self._world.any(cancelled()):
            raise nothing_trained(self._setup.job.folder)

    def _validated(self) -> Validation:
        loss, self._figures = self._validation_loss()
        now = self.progress
        best = math.isfinite(loss) and not now.astray and (now.best is None or loss < now.best)
        if best:
            self.progress = replace(now, best=loss, best_step=now.step, waited=0)
        else:
            self.progress = replace(now, waited=now.waited + 1)
        return Validation(now.step, loss, best)

    def _validation_loss(self, cancelled: Callable[[], bool] | None = None) -> tuple[float, dict[str, float]]:
        """The mean loss over the validation rows, and the means of the objective's own figures."""
        objective = self._setup.objective
        total = count = 0.0
        figures: list[Mapping[str, tuple[float, int]]] = []
        for batch in Batches(self._setup.data.valid, self._setup.batching, Position(0)).once():
            if cancelled is not None:
                self._go_on_unless(cancelled)
            made = self._world.share(objective.ready(self._model, batch, None), objective.together)
            if made is None:
                continue
            loss, tokens = objective.loss(self._model, made, learns=False)
            total, count = total + number(loss), count + tokens
            figures.append(objective.figures(self._model, made))
        total, count = self._world.numbers(total, count)
        return (total / count if count else math.nan), _means(figures)

    def _samples(self) -> Iterator[Sample]:
        wanted = int(self._setup.settings["samples"])
        if not self._world.first:
            return iter(())
        each = 2 if self._setup.data.pairs else 1  # two answers to one prompt
        prompts = self._setup.data.valid[: wanted * each : each]
        return sampled(self._loaded, prompts, self.progress.step)

    def _waited_enough(self) -> bool:
        patience = self._setup.settings.get("early_stop")
        return patience is not None and self.progress.waited >= int(patience)

    # -- what is written ---------------------------------------------------------------------------------

    def _write_row(self, event: TrainStep, found: Validation | None) -> None:
        row = Row(
            step=event.step,
            epoch=event.epoch,
            loss=event.loss,
            val_loss=found.loss if found is not None else None,
            learning_rate=event.learning_rate,
            grad_norm=event.grad_norm,
            tokens=event.tokens,
            supervised_tokens=event.supervised_tokens,
            tokens_per_s=event.tokens_per_s,
            peak_memory_bytes=event.peak_memory_bytes,
            wall_s=event.elapsed_s,
        )
        if self._world.first:
            self._metrics.add(row, **self._told, **(self._figures if found is not None else {}))

    def _save(self) -> Saved:
        """The state; and what is learned, where no look at the validation rows has found a best yet."""
        setup = self._setup
        if self._world.first:
            state.save(setup.job.folder, self._model, self._optimizer, self.progress, setup.identity())
        self._saved_step = self.progress.step
        if self.progress.best is None:
            self._write_learned()  # after the save: a run that is killed between goes on from here
        if self._world.first:
            write_curve(setup.job.folder)
        return Saved(self.progress.step, str(setup.job.folder))

    def _write_learned(self) -> None:
        setup = self._setup
        if not self._world.first:
            return
        extra = {
            **setup.settings,
            "model": str(setup.job.base),
            "data": str(setup.job.data),
            "adapter_path": str(setup.job.folder),
            "step": self.progress.step,
            "val_loss": self.progress.best,
        }
        learned.write(setup.job.folder, self._model, setup.method, extra)
        setup.objective.save(self._model, setup.job.folder)

    # -- sentences ---------------------------------------------------------------------------------------

    def _kept(self) -> str:
        if self._saved_step is None:
            return "nothing was saved yet"
        return f"the state of step {self._saved_step} is kept in {self._setup.job.folder}"

    def _diverged(self, what: str) -> str:
        rate = float(self._setup.settings["learning_rate"])
        return f"{what}; {self._kept()}; lower the learning rate (it was {rate:g}), or look at the rows of this step"

    def _out_of_memory(self) -> str:
        settings = self._setup.settings
        return (
            f"step {self.progress.step + 1}: memory ran out at {size(mx.get_peak_memory())} with "
            f"batch_size={settings['batch_size']} and max_seq_length={settings['max_seq_length']}; {self._kept()}; "
            "lower one of them, or turn grad_checkpoint on"
        )


def nothing_trained(folder: Path) -> Cancelled:
    """The end of a run that was stopped too early to be saved."""
    return Cancelled(f"{folder}: stopped before the first step; nothing was trained")


def _means(figures: Iterable[Mapping[str, tuple[float, int]]]) -> dict[str, float]:
    """Of sums and counts by name."""
    sums: dict[str, tuple[float, int]] = {}
    for of_batch in figures:
        for name, (value, many) in of_batch.items():
            before = sums.get(name, (0.0, 0))
            sums[name] = (before[0] + value, before[1] + many)
    return {name: value / many for name, (value, many) in sums.items() if many}
