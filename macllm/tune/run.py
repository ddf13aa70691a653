"""A fine-tuning run from its job to what it learned: the one way that the command, the app and Python train."""

from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx

from macllm.adapters.kept import WEIGHTS
from macllm.engine.loading import Progress as LoadProgress
from macllm.engine.loading import load_model
from macllm.engine.training_events import Planned, Preparing, TrainingEvent
from macllm.errors import InputError, MacllmError, MemoryLimitError
from macllm.nn.decoder import Decoder
from macllm.tune import state
from macllm.tune.ahead import keeping_to_plan
from macllm.tune.job import Job
from macllm.tune.loop import Loop, nothing_trained
from macllm.tune.methods import attach, rate_shares
from macllm.tune.optimizers import Optimizer
from macllm.tune.parallel import World
from macllm.tune.setup import Setup, plan_of, set_up
from macllm.tune.trained import flat
from macllm.units import size


def train(
    job: Job, *, cancelled: Callable[[], bool] = lambda: False, loading: LoadProgress | None = None
) -> Iterator[TrainingEvent]:
    """Trains and yields what happens, from Planned to Trained; before it Preparing, where answers are looked at first.

    ``cancelled`` is asked after every step: the run is saved, and ends. Closing the iterator ends it too, without a
    save. ``loading`` takes the bytes read of the base. Raises :class:`macllm.tune.setup.DataError` with every line
    that cannot be used, Cancelled before the first step, MemoryLimitError where it does not fit,
    :class:`macllm.tune.loop.Diverged` where it goes astray, MacllmError otherwise: one sentence.
    """
    if not job.resume:
        refuse_existing(job.folder)
    yield from run(set_up(job, cancelled=cancelled), cancelled=cancelled, loading=loading)


def run(
    setup: Setup, *, cancelled: Callable[[], bool] = lambda: False, loading: LoadProgress | None = None
) -> Iterator[TrainingEvent]:
    """As :func:`train`, of what is set up already."""
    job = setup.job
    lengths = [len(example) for example in (*setup.data.train, *setup.data.valid)]
    expected = plan_of(job, setup.settings, setup.spec, lengths, setup.objective, given=setup.settings)
    if expected.settings != setup.settings:  # of a run that goes on with less memory than it began with
        raise MemoryLimitError(
            f"{job.folder}: the run takes more than the {size(expected.limit_bytes)} that may be taken, and fits with "
            f"batch_size={expected.settings['batch_size']}; start a new run with that, or raise memory"
        )
    others = mx.get_active_memory()
    loaded = load_model(job.base, name=job.name or None, dtype=job.dtype, progress=loading)
    model = loaded.model
    if not isinstance(model, Decoder):
        raise MacllmError(f"{job.base}: only models of macllm's own families can be trained")
    for done, total in setup.objective.begin(model, [*setup.data.train, *setup.data.valid]):
        yield Preparing(done, total)
        if cancelled():
            raise nothing_trained(job.folder)
    attached = attach(model, setup.spec, setup.method, int(setup.settings["seed"]))
    setup.objective.equip(model)
    shares = rate_shares(attached.names, float(setup.settings["loraplus_ratio"]))
    optimizer = Optimizer(setup.optimizer, flat(model), shares)
    if setup.saved is not None:
        state.restore(setup.saved, model, optimizer)
    yield Planned(
        base=loaded.name,
        adapter=job.folder.name,
        train_rows=len(setup.data.train) // setup.objective.together,
        valid_rows=len(setup.data.valid) // setup.objective.together,
        steps=setup.steps,
        trainable_parameters=sum(array.size for array in flat(model).values()),
        estimated_bytes=expected.needed_bytes,
        memory_limit_bytes=expected.limit_bytes,
        resumed_step=setup.saved.progress.step if setup.saved is not None else 0,
        notes=setup.notes,
    )
    with keeping_to_plan(expected.needed_bytes, others):
        yield from Loop(setup, loaded, model, optimizer, World.here()).run(cancelled)


def refuse_existing(folder: Path) -> None:
    """What an earlier run learned is never written over. Raises InputError where ``folder`` holds any."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: there is a file of this name; name another folder")
    if (folder / WEIGHTS).exists() or state.newest(folder) is not None:
        raise InputError(f"{folder}: there is an adapter already; resume it, or name another folder")
