"""What a fine-tuning run tells its caller: Preparing where it has to, Planned, TrainStep, Validation, Sample and Saved,
then Trained.

It may also fail: ``macllm.engine.events.Failed``. Frozen plain values, recorded and sent as all events are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Preparing:
    """So many of all answers were looked at, by the base or a teacher, before anything is learned."""

    done: int
    total: int


@dataclass(frozen=True)
class Planned:
    """What is about to be trained: rows and steps, and the estimated peak of memory."""

    base: str
    adapter: str
    train_rows: int
    valid_rows: int
    steps: int
    trainable_parameters: int
    estimated_bytes: int
    memory_limit_bytes: int
    resumed_step: int = 0  # where a stopped run goes on; 0: from the start
    notes: tuple[str, ...] = ()  # sentences about what was chosen or left out


@dataclass(frozen=True)
class TrainStep:
    """One optimizer step. The loss is a mean over its supervised tokens, in nats."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int  # all so far
    tokens_per_s: float
    memory_bytes: int
    peak_memory_bytes: int
    elapsed_s: float
    eta_s: float
    epoch: float = 0.0  # passes through the data so far
    supervised_tokens: int = 0  # of ``tokens``, those that were learned
    figures: Mapping[str, float] = field(default_factory=dict)  # the objective's own, such as rewards


@dataclass(frozen=True)
class Validation:
    """Loss over the validation rows after ``step``; ``best`` so far."""

    step: int
    loss: float
    best: bool


@dataclass(frozen=True)
class Sample:
    """What the model with the adapter as it is now answers to a prompt."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Saved:
    """The state to resume from is on disk."""

    step: int
    path: str


@dataclass(frozen=True)
class Trained:
    """The run ended: all steps done, stopped early by the validation loss, or by the user (resumable)."""

    reason: Literal["finished", "early_stop", "stopped"]
    step: int
    path: str
    train_loss: float
    valid_loss: float | None


TrainingEvent: TypeAlias = Preparing | Planned | TrainStep | Validation | Sample | Saved | Trained
