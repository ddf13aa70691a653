"""What there is to tell of a fine-tuning run: its events gathered, and each of its figures in words."""

import math
import shlex
from collections import deque

from macllm.engine.training_events import (
    Planned,
    Preparing,
    Sample,
    Saved,
    Trained,
    TrainingEvent,
    TrainStep,
    Validation,
)
from macllm.plotting.series import Series
from macllm.units import count, duration, size

SPEEDS = 64  # tokens/s of the last steps


class Watched:
    """A run so far. ``stopping`` once it was asked to end after the step under way."""

    def __init__(self, base: str, folder: str) -> None:
        self.base, self.folder = base, folder
        self.preparing: Preparing | None = None
        self.planned: Planned | None = None
        self.step: TrainStep | None = None
        self.validation: Validation | None = None
        self.first: Validation | None = None  # before anything was learned
        self.best: Validation | None = None
        self.saved: Saved | None = None
        self.sample: Sample | None = None
        self.trained: Trained | None = None
        self.stopping = False
        self.remarks: list[str] = []  # what is not the run's to say
        self.loss, self.valid_loss = Series("loss"), Series("validation")
        self.speeds: deque[float] = deque(maxlen=SPEEDS)

    def take(self, event: TrainingEvent) -> None:
        """One event of the run."""
        match event:
            case Preparing():
                self.preparing = event
            case Planned():
                self.planned = event
            case TrainStep():
                self.step = event
                self.loss.append(event.step, event.loss)
                self.speeds.append(event.tokens_per_s)
            case Validation():
                self._look(event)
            case Sample():
                self.sample = event
            case Saved():
                self.saved = event
            case Trained():
                self.trained = event

    def _look(self, event: Validation) -> None:
        self.validation = event
        self.valid_loss.append(event.step, event.loss)
        if event.step == 0:
            self.first = event
        if event.best:
            self.best = event


def preparing_words(event: Preparing) -> str:
    """``looking at the answers before learning: 40 of 800``."""
    return f"looking at the answers before learning: {event.done:,} of {event.total:,}"


def planned_words(planned: Planned) -> str:
    """``1,024 rows, 51 to validate with, 300 steps, 1.2 million weights learn, about 1.4 GB of 12 GB``."""
    words = (
        f"{counted(planned.train_rows, 'row')}, {planned.valid_rows:,} to validate with,"
        f" {counted(planned.steps, 'step')}, {count(planned.trainable_parameters)} weights learn,"
        f" about {size(planned.estimated_bytes)}"
    )
    limit = f" of {size(planned.memory_limit_bytes)} that may be taken" if planned.memory_limit_bytes else ""
    return words + limit


def step_words(step: TrainStep, loss: float) -> str:
    """A step in a line; ``loss`` is what is told of the steps since the last line."""
    left = f", {duration(step.eta_s)} left" if step.step < step.steps else ""
    return (
        f"step {step.step}/{step.steps}: loss {loss:.4f}, rate {step.learning_rate:.3g},"
        f" gradient {step.grad_norm:.3g}, {step.tokens_per_s:,.0f} tok/s,"
        f" peak {size(step.peak_memory_bytes)}{left}"
    )


def figures_words(step: TrainStep) -> str:
    """What an objective says of a step itself, such as rewards."""
    return "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in step.figures.items())


def look_words(look: Validation) -> str:
    """``step 200: validation 1.2345, the best so far``."""
    mark = ", the best so far" if look.best else ", before learning" if look.step == 0 else ""
    return f"step {look.step}: validation {look.loss:.4f}{mark}"


def sample_words(sample: Sample, most: int = 200) -> str:
    """A prompt and its answer, each on one line of at most ``most`` characters."""
    return f"step {sample.step}: {_folded(sample.prompt, most)} -> {_folded(sample.text, most)}"


def ending_words(watched: Watched) -> str:
    """How a run that was not stopped ended."""
    trained = watched.trained
    assert trained is not None
    early = " early, since validation no longer got better" if trained.reason == "early_stop" else ""
    parts = [f"{watched.folder}: finished{early} after {counted(trained.step, 'step')}"]
    if math.isfinite(trained.train_loss):
        parts.append(f"loss {trained.train_loss:.4f}")
    if trained.valid_loss is not None:
        at = f" (step {watched.best.step})" if watched.best is not None else ""
        before = f" after {watched.first.loss:.4f} at the start" if watched.first is not None else ""
        parts.append(f"validation {trained.valid_loss:.4f}{at}{before}")
    return ", ".join(parts)


def use_words(watched: Watched) -> str:
    """How what was learned is used."""
    return f"macllm chat {shlex.quote(watched.base)} --adapter {shlex.quote(watched.folder)}"


def resume_words(folder: str) -> str:
    """How a run goes on."""
    return f"macllm finetune --resume {shlex.quote(folder)}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(text: str) -> str:
    """A text on one line, without what would command the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


def _folded(text: str, most: int) -> str:
    words = shown(text)
    return words if len(words) <= most else f"{words[: most - 1]}…"
