"""``macllm chat``: talks with a model. On a terminal a prompt with history; piped, a reply for each line."""

import argparse
import sys
from pathlib import Path

from macllm.cli.options import add_dtype, add_sampling, limits_from, sampling_from
from macllm.cli.output import tell

HELP = "Talk with a model. Piped, each line of stdin is a message and each reply goes to stdout."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="default: the last used, else the starter, fetched when missing",
    )
    parser.add_argument("--system", metavar="TEXT", help="what the model is told to be")
    parser.add_argument("--plain", action="store_true", help="no colour and no figures: text only")
    add_dtype(parser)
    add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    """Loads the model and talks until the input ends."""
    from macllm.cli.loading import load
    from macllm.cli.talk import Talk, talk_on_terminal, talk_through_pipe
    from macllm.hub import store
    from macllm.hub.catalogue import STARTER

    name = args.model if args.model is not None else store.last_used() or STARTER
    llm = load(name, args.dtype)
    origin = llm.tokenizer.template_origin  # a chat without a tokenizer ends here, before a prompt is shown
    if origin != "model":
        form = "ChatML" if origin == "chatml" else "User: and Assistant:"
        tell(
            f"{llm.name} has no chat template of its own; messages are written as {form}, which it may not know"
        )
    store.mark_used(_lasting(name))
    watched = sys.stdin.isatty()
    talk = Talk(llm, args.system, sampling_from(args, llm.sampling), limits_from(args, watched=watched))
    return talk_on_terminal(talk, plain=args.plain) if watched else talk_through_pipe(talk)


def _lasting(name: str) -> str:
    """The name as it is understood from every folder."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
