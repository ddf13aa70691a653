"""What the engine's service knows of fine-tuning: who makes a run's events, and what others are told meanwhile."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from macllm.engine.events import Failed, Notice
from macllm.engine.loading import Progress
from macllm.engine.protocol import Train
from macllm.engine.training_events import TrainingEvent

# asked for a run's events; told whether it was cancelled, and telling how much of the base is loaded
Trainer: TypeAlias = Callable[[Train, Callable[[], bool], Progress], Iterator[Notice | TrainingEvent]]

UNAVAILABLE = Failed(
    "this engine only chats; start the one of macllm.tune.worker to fine-tune", 1, "TrainingUnavailable"
)


def busy(run: Train) -> Failed:
    """What a request is answered while ``run`` is under way."""
    return Failed(
        f"adapter {run.adapter!r} is being trained on {run.model.name}, which takes the whole machine;"
        " stop the run (it can be resumed), or ask again when it has ended",
        1,
        "TrainingUnderWay",
    )
