"""What ``macllm finetune`` is asked for: its arguments over a recipe, or over the run that is to go on."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from macllm.adapters import kept
from macllm.cli.finetune_options import over, settings_from
from macllm.errors import InputError, OptionError
from macllm.tune.recipe import Recipe, read_recipe
from macllm.tune.settings import Value


@dataclass(frozen=True)
class Request:
    """A run as it is asked for. ``model`` and ``data`` are as written; empty where a run that goes on knows them."""

    model: str
    data: str
    folder: Path
    settings: Mapping[str, Value] = field(default_factory=dict)
    resume: bool = False
    report_to: tuple[str, ...] = ()
    project: str = ""
    every: int | None = None  # steps a report


def request_from(args: argparse.Namespace) -> Request:
    """The request. Raises InputError or OptionError for what is missing or cannot be, before anything is read."""
    recipe = read_recipe(Path(args.config).expanduser()) if args.config else Recipe()
    places = {**recipe.places, **_given(args)}
    settings = over(recipe.settings, settings_from(args))
    resume = args.resume is not None
    folder = _folder(args, places)
    model, data = places.get("model", ""), places.get("data", "")
    if not resume and not model:
        raise InputError("no model is named; see `macllm finetune --help`")
    if not resume and not data:
        raise InputError("no data is named; give a .jsonl file or a folder with train.jsonl as --data")
    every = places.get("steps_per_report")
    return Request(
        model=model,
        data=data,
        folder=folder if folder is not None else kept.folder() / kept.free_name(data),
        settings=settings,
        resume=resume,
        report_to=_reports(places.get("report_to", "")),
        project=places.get("project_name") or "macllm",
        every=int(every) if every is not None else None,
    )


def _given(args: argparse.Namespace) -> dict[str, str]:
    found = {
        "model": args.model,
        "data": args.data,
        "adapter_path": args.adapter_path,
        "report_to": args.report_to,
        "project_name": args.project_name,
        "steps_per_report": args.steps_per_report,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _folder(args: argparse.Namespace, places: Mapping[str, str]) -> Path | None:
    """The folder of the adapter; None where a free one is to be chosen."""
    named = places.get("adapter_path")
    if args.resume is None:
        return Path(named).expanduser().absolute() if named is not None else None
    folder = Path(args.resume).expanduser().absolute()
    if not folder.exists() and "/" not in args.resume and (kept.folder() / args.resume).is_dir():
        folder = kept.folder() / args.resume
    if args.adapter_path is not None and Path(args.adapter_path).expanduser().absolute() != folder:
        raise OptionError(
            f"--resume goes on in {folder}, where it lies; leave out --adapter-path, or copy the folder first"
        )
    return folder


def _reports(text: str) -> tuple[str, ...]:
    from macllm.tune.reporters import checked_names

    return checked_names(text)
