"""``macllm finetune --plan``: what a run will be and take, before anything is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from macllm.cli.finetune_data import data_json, packing_words
from macllm.cli.finetune_watch import counted
from macllm.cli.output import print_json, print_table
from macllm.errors import MemoryLimitError, OptionError
from macllm.units import count, size

if TYPE_CHECKING:
    from macllm.tune.setup import Setup


@dataclass(frozen=True)
class Plan:
    """A run that is set up, and what it takes; ``refusal`` says why it is none, and is empty where it fits."""

    setup: "Setup"
    needed_bytes: int | None
    limit_bytes: int | None
    refusal: str
    parameters: int  # that learn


def plan_of(setup: "Setup") -> Plan:
    """Reckons what the run takes, as it is reckoned again before it begins."""
    from macllm.adapters.shapes import parameters
    from macllm.tune import setup as parts
    from macllm.weights.model_files import open_model

    files = open_model(setup.job.base)
    packed = files.plan.default if files.gguf is None else None
    group = packed.group_size if packed is not None else 64
    counted = parameters(setup.spec, setup.method, group)
    lengths = [len(example) for example in (*setup.data.train, *setup.data.valid)]
    try:
        found = parts.plan_of(
            setup.job, setup.settings, setup.spec, lengths, setup.objective, given=setup.settings
        )
    except MemoryLimitError as error:
        return Plan(setup, None, None, str(error), counted)
    return Plan(setup, found.needed_bytes, found.limit_bytes, "", counted)


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Prints the plan. Raises OptionError where the run would be refused."""
    if as_json:
        print_json(_as_json(plan))
    else:
        _print(plan)
    if plan.refusal:
        raise OptionError(plan.refusal)


def _print(plan: Plan) -> None:
    from macllm.tune.dataset import statistics

    setup, job = plan.setup, plan.setup.job
    stats = statistics(setup.data.train)
    rows = [
        ("base", job.name or str(job.base)),
        ("data", str(job.data)),
        ("adapter", str(job.folder)),
        ("method", _method(setup)),
        ("rows", f"{len(setup.data.train) // setup.objective.together:,}"),
        ("rows to validate with", f"{len(setup.data.valid) // setup.objective.together:,}"),
        ("tokens", f"{stats.tokens:,}, {stats.supervised_share:.0%} of them learned"),
        ("longest row", f"{stats.longest:,} tokens ({stats.longest_at})"),
        ("batches", f"{setup.per_epoch:,} a pass"),
        ("steps", _steps(setup)),
        ("weights that learn", count(plan.parameters)),
    ]
    print_table(("", "plan"), rows)
    print()
    for text in (packing_words(setup), *(_sentence(note) for note in setup.notes)):
        if text is not None:
            print(text)
    print(_sentence(plan.refusal or _takes(plan)))


def _takes(plan: Plan) -> str:
    of = f" of the {size(plan.limit_bytes)} that may be taken" if plan.limit_bytes else ""
    return f"fits: a step takes {size(plan.needed_bytes or 0)}{of}"


def _method(setup: "Setup") -> str:
    method = setup.method
    words = [f"{setup.settings['objective']} by {method.kind}"]
    words += [
        f"{name} {value:g}"
        for name in ("rank", "scale", "tokens")
        if method.kind != "full" and (value := getattr(method, name, None)) is not None
    ]
    return ", ".join([*words, setup.optimizer.name])


def _steps(setup: "Setup") -> str:
    begun = setup.saved.progress.step if setup.saved is not None else 0
    passes = setup.batches / setup.per_epoch if setup.per_epoch else 0.0
    words = f"{setup.steps:,}, {passes:.3g} times through the rows"
    return f"{words}; {counted(begun, 'step')} are done" if begun else words


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def _as_json(plan: Plan) -> dict[str, Any]:
    setup, job = plan.setup, plan.setup.job
    return {
        "base": job.name or str(job.base),
        "data": str(job.data),
        "adapter_path": str(job.folder),
        **data_json(setup),
        "batches_per_epoch": setup.per_epoch,
        "steps": setup.steps,
        "resumed_step": setup.saved.progress.step if setup.saved is not None else 0,
        "trainable_parameters": plan.parameters,
        "estimated_bytes": plan.needed_bytes,
        "memory_limit_bytes": plan.limit_bytes,
        "fits": not plan.refusal,
        "refusal": plan.refusal or None,
        "settings": dict(setup.settings),
        "notes": list(setup.notes),
    }
