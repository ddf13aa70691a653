"""All that a run is, before its model is loaded: rows read and checked, batches counted, settings resolved."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from macllm.adapters.method import AnyMethod
from macllm.adapters.shapes import learned_shapes
from macllm.backend import current
from macllm.errors import ConfigError, InputError, OptionError
from macllm.spec import ModelSpec
from macllm.tokenizer import Tokenizer
from macllm.tune import settings as table
from macllm.tune import state
from macllm.tune.batches import Batching
from macllm.tune.dataset import DataSet, prepare
from macllm.tune.job import (
    Job,
    batching_of,
    example_settings_of,
    method_of,
    optimizer_of,
    schedule_of,
    why_not_packed,
)
from macllm.tune.memory import Base, read_base
from macllm.tune.objective import Objective
from macllm.tune.objectives.kinds import refuse_rows
from macllm.tune.objectives.registry import objective_of
from macllm.tune.optimizers import OptimizerSpec
from macllm.tune.peak import Device
from macllm.tune.planner import NothingFits, Plan, plan
from macllm.tune.rows import Problem, Progress
from macllm.tune.schedules import Schedule
from macllm.tune.settings import Value
from macllm.weights.model_files import ModelFiles, open_model

# what a run that goes on may do otherwise: none of it changes what the steps so far came to
CHANGEABLE = frozenset(
    {
        "iters",
        "epochs",
        "learning_rate",
        "clip",
        "save_every",
        "steps_per_eval",
        "early_stop",
        "samples",
        "memory",
    }
)


_FEW_STEPS = 30  # below it little is learned at the usual learning rates


class DataError(InputError):
    """Rows that cannot be learned from: all of them in ``problems``."""

    def __init__(self, problems: tuple[Problem, ...], place: str) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more lines)" if len(problems) > 1 else ""
        super().__init__(f"{place}: {first}{more}; nothing was trained")
        self.problems = problems


@dataclass(frozen=True)
class Setup:
    """A run that can begin. ``saved`` is where an earlier one stopped; ``notes`` are sentences about what was chosen.

    ``per_epoch`` are the batches of a pass, ``batches`` those of the whole run and ``steps`` what they come to.
    """

    job: Job
    settings: Mapping[str, Value]
    spec: ModelSpec
    tokenizer: Tokenizer
    data: DataSet
    objective: Objective
    method: AnyMethod
    optimizer: OptimizerSpec
    schedule: Schedule
    batching: Batching
    per_epoch: int
    batches: int
    date: str
    saved: state.Saved | None = None
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def identity(self) -> dict[str, Any]:
        """What a run that goes on has to have in common with the one that stopped; and where to find it."""
        places = {"model": self.job.name or str(self.job.base), "rows": str(self.job.data)}
        return {"settings": dict(self.settings), "data": self.data.key, "date": self.date, **places}


def set_up(
    job: Job, *, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None
) -> Setup:
    """Reads and checks everything but the weights.

    ``progress`` and ``cancelled`` as in :func:`macllm.tune.dataset.prepare`. Raises DataError with every line that
    cannot be used, and InputError in one sentence for all else that cannot be.
    """
    saved = _saved(job)
    settings = _settings(job, saved)
    files = open_model(job.base)
    spec = _spec(files)
    date = saved.date if saved is not None else datetime.now().replace(microsecond=0).isoformat()
    objective = objective_of(settings, spec, job.base)
    method = method_of(settings)
    optimizer_of(settings)  # refused before rows are read
    learned_shapes(spec, method)  # targets that name nothing are refused before anything is loaded
    tokenizer = files.tokenizer()
    data = prepare(
        job.data,
        tokenizer,
        example_settings_of(settings, date),
        seed=int(settings["seed"]),
        progress=progress,
        cancelled=cancelled,
    )
    if not data.good:
        raise DataError(data.problems, str(job.data))
    if data.schema is not None:
        labels = {example.label for example in data.train}
        refuse_rows(str(settings["objective"]), data.schema, labels)
    refused = tuple(_refused(objective, data))
    if refused:
        raise DataError(refused, str(job.data))
    if saved is not None and saved.data != data.key:
        raise InputError(
            f"{job.data}: the rows are others than those that {saved.folder} was saved with; bring the old ones back, "
            "or start a new run"
        )
    lengths = [len(example) for example in data.train]
    looked_at = [len(example) for example in data.valid]
    chosen: tuple[str, ...] = ()
    if saved is None:
        settings, chosen = _fitting(job, settings, spec, [*lengths, *looked_at], objective)
    batching = batching_of(
        settings, spec, lengths, looked_at, together=objective.together, packs=objective.packs
    )
    per_epoch = batching.per_epoch(lengths)
    steps = table.steps(settings, per_epoch)
    return Setup(
        job=job,
        settings=settings,
        spec=spec,
        tokenizer=tokenizer,
        data=data,
        objective=objective,
        method=method,
        optimizer=optimizer_of(settings),
        schedule=schedule_of(settings, steps),
        batching=batching,
        per_epoch=per_epoch,
        batches=table.batches(settings, per_epoch),
        date=date,
        saved=saved,
        notes=(*_notes(data, steps), *chosen),
    )


def _fitting(
    job: Job, settings: dict[str, Value], spec: ModelSpec, lengths: list[int], objective: Objective
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """The settings with what was chosen to fit into memory, and sentences about it. Where nothing fits those that take
    least: a plan can be shown, and a run refuses them.
    """
    try:
        found = plan_of(job, settings, spec, lengths, objective, given=job.settings)
    except NothingFits as error:
        return dict(error.settings), ()
    return dict(found.settings), found.notes[:-1]


def plan_of(
    job: Job,
    settings: Mapping[str, Value],
    spec: ModelSpec,
    lengths: Sequence[int],
    objective: Objective,
    given: Collection[str],
) -> Plan:
    """How the run fits into what models may take on this machine. Raises NothingFits where it does not."""
    backend = current(job.dtype)
    base = Base(read_base(job.base).weight_bytes, spec)
    why = why_not_packed(settings, spec, together=objective.together, packs=objective.packs)
    packs = why is None and settings["pack"] != "no"
    device = Device.of(backend.name, backend.dtype)
    limit = backend.memory_limit_bytes
    return plan(
        base,
        settings,
        limit,
        lengths=lengths,
        packs=packs,
        given=given,
        device=device,
        beside=objective.beside(),
    )


def _refused(objective: Objective, data: DataSet) -> Iterator[Problem]:
    """The rows that the objective cannot learn from."""
    for example in (*data.train, *data.valid):
        reason = objective.refuses(example)
        if reason is not None:
            file, _, line = example.place.rpartition(":")
            yield Problem(file, int(line), reason)


def _saved(job: Job) -> state.Saved | None:
    if not job.resume:
        return None
    saved = state.newest(job.folder)
    if saved is None:
        raise InputError(f"{job.folder}: no run has saved its state there; start it without resuming")
    return saved


def _settings(job: Job, saved: state.Saved | None) -> dict[str, Value]:
    """Those of the job over the defaults, or over those of the run that goes on."""
    if saved is None:
        return table.checked(job.settings)
    begun = dict(saved.settings)
    if "epochs" in job.settings:
        begun.pop("iters", None)  # steps, where they are stated, go over passes
    given = table.checked({**begun, **job.settings})
    other = next(
        (name for name in given if name not in CHANGEABLE and given[name] != saved.settings.get(name)), None
    )
    if other is not None:
        raise OptionError(
            f"{other}={given[other]!r} is not what the run in {saved.folder} began with "
            f"({saved.settings.get(other)!r}); leave it out to go on, or start a new run"
        )
    return given


def _spec(files: ModelFiles) -> ModelSpec:
    if not files.native:
        raise ConfigError(
            f"{files.label}: model_type={files.config.get('model_type')!r} is run by mlx-lm's own class, which "
            "macllm does not train; choose a model of a family that `macllm families` lists"
        )
    return files.spec


def _notes(data: DataSet, steps: int) -> list[str]:
    notes = []
    if data.set_aside:
        rows = len(data.valid) // (2 if data.pairs else 1)
        were = "row was" if rows == 1 else "rows were"
        notes.append(f"{rows} {were} set aside to validate with; a valid.jsonl would say which")
    cut = sum(example.truncated for example in data.train)
    if cut:
        longest = next(example for example in data.train if example.truncated)
        are = (
            "row is longer than max_seq_length and is"
            if cut == 1
            else "rows are longer than max_seq_length and are"
        )
        notes.append(f"{cut} {are} cut, the first is {longest.place}")
    if steps < _FEW_STEPS:
        count = "1 step" if steps == 1 else f"{steps} steps"
        notes.append(
            f"a run of {count} teaches little; more come of a smaller batch_size, or of more epochs or iters"
        )
    return notes
