"""The engine's process as the app starts it, ``python -m macllm.tune.worker``: the same, and it fine-tunes.

It is here since what trains stands above the engine: the engine's own entry knows nothing of it.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from macllm.engine.worker import main

if TYPE_CHECKING:
    from macllm.engine.events import Notice
    from macllm.engine.loading import Progress
    from macllm.engine.protocol import Train
    from macllm.engine.training_events import TrainingEvent


def train(
    request: "Train", cancelled: Callable[[], bool], loading: "Progress"
) -> "Iterator[Notice | TrainingEvent]":
    """The events of a run, as :data:`macllm.engine.training.Trainer` has it."""
    from macllm.tune.served import served  # who only chats does not wait for it, and it may print

    return served(request, cancelled, loading)


if __name__ == "__main__":
    main(train)
