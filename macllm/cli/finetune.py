"""``macllm finetune``: teaches a model by the rows of a file, and says how what it learned is used."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from macllm.cli.download import DownloadDisplay
from macllm.cli.finetune_options import add_settings
from macllm.cli.options import add_dtype, add_json, positive
from macllm.errors import InputError

if TYPE_CHECKING:
    from macllm.cli.finetune_request import Request
    from macllm.tune.job import Job
    from macllm.tune.setup import Setup

HELP = "teach a model by example conversations or texts, on this machine"
RECIPE = "recipe.toml"

EPILOG = """examples:
  macllm finetune starter --data chats.jsonl            an adapter, with its loss curve
  macllm finetune starter --data chats.jsonl --plan     what it would take
  macllm finetune starter --data chats.jsonl --init     a recipe for it, to be changed
  macllm finetune -c recipe.toml --iters 200            options go over a recipe
  macllm finetune --resume FOLDER                       go on where a run stopped

A row of the data is a line of JSON with messages, with prompt and completion, or with text.
Other objectives have rows of their own: docs/finetuning-objectives.md.
ctrl+c saves and stops."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments, flags as mlx-lm has them."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.usage = "%(prog)s MODEL --data PATH [OPTIONS]"  # every option's name alone would fill a screen
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model (see `macllm pull --help`)")
    parser.add_argument(
        "--data", metavar="PATH", help="a .jsonl file, a folder with train.jsonl, or org/name on Hugging Face"
    )
    parser.add_argument(
        "--adapter-path", metavar="DIR", help="the folder to write (a free one among macllm's adapters)"
    )
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    parser.add_argument("-c", "--config", metavar="FILE", help="a recipe: the same names in a TOML file")
    group = parser.add_argument_group("instead of a run")
    group.add_argument("--plan", action="store_true", help="say what it will be and take, and exit")
    group.add_argument(
        "--show-data",
        action="store_true",
        help="show figures of the data, and what is learned of its first row",
    )
    group.add_argument(
        "--init", metavar="FILE", nargs="?", const=RECIPE, help=f"write a recipe for the data ({RECIPE})"
    )
    add_settings(parser)
    group = parser.add_argument_group("telling how it goes")
    group.add_argument(
        "--report-to", metavar="NAMES", help="tensorboard, wandb, trackio: extras, with commas between"
    )
    group.add_argument("--project-name", metavar="NAME", help="project of these reports (macllm)")
    group.add_argument("--steps-per-report", type=positive, metavar="N", help="steps a report, and a line")
    add_dtype(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Trains, or shows what is asked for instead."""
    if args.init is not None:
        from macllm.cli.finetune_init import write_recipe

        print(write_recipe(args, Path(args.init).expanduser()))
        return 0
    from macllm.cli.finetune_request import request_from

    request = request_from(args)
    setup = _set_up(_job(request, args.dtype))
    if args.show_data:
        from macllm.cli.finetune_data import show_data

        show_data(setup, as_json=args.json)
    elif args.plan:
        from macllm.cli.finetune_plan import plan_of, show_plan

        show_plan(plan_of(setup), as_json=args.json)
    else:
        from macllm.cli.finetune_run import train

        train(setup, request, as_json=args.json)
    return 0


def _job(request: "Request", dtype: str | None) -> "Job":
    """The job, its model found or fetched."""
    from macllm.hub.pull import find
    from macllm.tune.job import Job
    from macllm.tune.run import refuse_existing
    from macllm.tune.state import newest

    model, data, begun = request.model, request.data, ""
    if request.resume:
        saved = newest(request.folder)
        if saved is None:
            raise InputError(
                f"{request.folder}: no run has saved its state there; start one without --resume"
            )
        begun = str(saved.more.get("model", ""))
        model, data = model or begun, data or str(saved.more.get("rows", ""))
    else:
        refuse_existing(request.folder)  # before a download
    with DownloadDisplay(model) as display:
        found = find(model, display)
    name = str(found.path.absolute()) if found.source == str(found.path) else model
    if begun and name != begun and found.path != find(begun).path:
        raise InputError(
            f"{request.folder}: its run teaches {begun}, not {model}; leave the model out to go on"
        )
    rows = Path(data).expanduser()
    return Job(
        base=found.path,
        data=rows.absolute() if rows.exists() else rows,
        folder=request.folder,
        settings=request.settings,
        name=name,
        dtype=dtype,
        resume=request.resume,
    )


def _set_up(job: "Job") -> "Setup":
    from macllm.cli.finetune_data import reading, refuse
    from macllm.tune.setup import DataError, set_up

    with reading(job.data) as bar:
        try:
            return set_up(job, progress=bar.update)
        except DataError as error:
            problems = error.problems
    refuse(problems, str(job.data))
    raise AssertionError("unreachable")
