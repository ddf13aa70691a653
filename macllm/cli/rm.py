"""``macllm rm``: deletes an installed model, after asking on a terminal."""

import argparse
import sys

from macllm.cli.output import tell
from macllm.units import size

HELP = "delete an installed model"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("name", metavar="NAME", help="an installed model (see `macllm list`)")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """Deletes the model unless the user declines; only a terminal is asked."""
    from macllm.errors import ConfigError, SourceError
    from macllm.hub import store

    try:
        model = store.named(args.name)
        if model is None:
            raise SourceError(store.unknown_installed(args.name))
        what = (
            f"{model.name} ({size(model.size_bytes)})"
            if model.owned
            else f"the entry {model.name}, not its files"
        )
    except ConfigError:
        what = f"{args.name}, whose record is damaged,"
    if not args.yes and sys.stdin.isatty() and not _agreed(f"delete {what}? [y/N] "):
        tell("nothing was deleted")
        return 1
    removed = store.remove(args.name)
    if removed.kept is not None:
        print(f"removed {removed.name}; its files stay at {removed.kept}, macllm did not download them")
    else:
        print(f"removed {removed.name}, {size(removed.freed_bytes)} freed")
    return 0


def _agreed(question: str) -> bool:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
