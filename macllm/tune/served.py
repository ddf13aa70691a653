"""A fine-tuning run as the engine's process is asked for it: the request as a job, and its events."""

from collections.abc import Callable, Iterator
from pathlib import Path

from macllm.adapters import kept
from macllm.engine.events import Notice
from macllm.engine.loading import Progress
from macllm.engine.protocol import Train
from macllm.engine.training_events import TrainingEvent
from macllm.tune.job import Job
from macllm.tune.run import train
from macllm.tune.setup import DataError

SHOWN = 50  # rows that cannot be used, each named


def job_of(request: Train) -> Job:
    """Raises InputError for a name that an adapter cannot have."""
    model = request.model
    return Job(
        base=Path(model.path),
        data=Path(request.data).expanduser(),
        folder=kept.folder() / kept.checked_name(request.adapter),
        settings=request.settings,
        name=model.name,
        dtype=model.dtype,
        resume=request.resume,
    )


def served(
    request: Train, cancelled: Callable[[], bool], loading: Progress
) -> Iterator[Notice | TrainingEvent]:
    """As :func:`macllm.tune.run.train`; rows that cannot be used are named one by one before it is raised."""
    try:
        yield from train(job_of(request), cancelled=cancelled, loading=loading)
    except DataError as error:
        yield from (Notice(str(problem)) for problem in error.problems[:SHOWN])
        raise
