"""``macllm adapters``: lists what was learned here, says what an adapter is, and converts it for other tools."""

import argparse
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.cli.options import add_json
from macllm.cli.output import print_json, print_table, tell
from macllm.errors import InputError, OptionError
from macllm.units import size

if TYPE_CHECKING:
    from macllm.adapters.about import About

HELP = (
    "List the adapters kept here; say what one is (info); or write it in another tool's format (convert). NAME is one"
    " that the list shows, or a folder: macllm's and mlx-lm's, or PEFT's."
)
_ACTIONS = {"list": (0, ""), "info": (1, "NAME"), "convert": (2, "NAME OUT")}  # the words that follow
_FORMATS = ("peft", "mlx", "gguf")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    shown = ", ".join(f"{name} {what}" for name, (_, what) in _ACTIONS.items() if what)
    parser.add_argument("words", metavar="ACTION", nargs="*", help=f"{shown}; without one, the list")
    parser.add_argument(
        "--to", choices=_FORMATS, help="convert: the format; gguf is one file, for llama.cpp's --lora"
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="convert: the model it was learned on (default: the one that its config names)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Does what was asked."""
    action, words = (args.words[0], args.words[1:]) if args.words else ("list", [])
    _check(action, words, args)
    actions = {"list": _list, "info": _info, "convert": _convert}
    return actions[action](words, args)


def _check(action: str, words: list[str], args: argparse.Namespace) -> None:
    see = "see `macllm adapters --help`"
    if action not in _ACTIONS:
        close = difflib.get_close_matches(action, _ACTIONS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_ACTIONS)}"
        raise InputError(f"no action {action} of macllm adapters ({hint}); {see}")
    wanted, what = _ACTIONS[action]
    if len(words) < wanted:
        raise InputError(f"`macllm adapters {action}` needs {what}; {see}")
    if len(words) > wanted:
        raise InputError(f"'{words[wanted]}' is one argument too many; {see}")
    for flag, value in (("--to", args.to), ("--base", args.base)):
        if value is not None and action != "convert":
            raise OptionError(f"{flag} does not go with `macllm adapters {action}`; {see}")
    if action == "convert" and args.to is None:
        raise InputError(f"`macllm adapters convert` needs --to {' or '.join(_FORMATS)}; {see}")


def _list(words: list[str], args: argparse.Namespace) -> int:
    from macllm.adapters.about import all_kept

    found, problems = all_kept()
    if args.json:
        print_json([_as_json(one) for one in found])
    elif not found:
        print("no adapters yet; `macllm finetune` makes one")
    else:
        rows = [(one.name, one.method, _rank(one), one.base, size(one.size_bytes)) for one in found]
        print_table(("NAME", "METHOD", "RANK", "BASE", "SIZE"), rows, right=(2, 4))
    for problem in problems:
        tell(f"macllm: {problem}")
    return 0


def _info(words: list[str], args: argparse.Namespace) -> int:
    from macllm.adapters.about import about
    from macllm.adapters.kept import find

    found = about(find(words[0]))
    if args.json:
        print_json(
            {**_as_json(found), "tensors": {name: list(shape) for name, shape in found.tensors.items()}}
        )
        return 0
    rows = {
        "path": str(found.path),
        "format": found.format,
        "method": found.method,
        "rank": _rank(found),
        "scale": f"{found.scale:g}" if found.scale is not None else "-",
        "base": found.base or "not stated",
        "size": f"{size(found.size_bytes)}, {found.parameters:,} numbers in {len(found.tensors)} tensors",
    }
    for name, text in rows.items():
        print(f"{name:8}{text}")
    print(f"\nmacllm chat {found.base or 'MODEL'} --adapter {words[0]}")
    return 0


def _convert(words: list[str], args: argparse.Namespace) -> int:
    from macllm.adapters.about import about
    from macllm.adapters.kept import find
    from macllm.adapters.sharing import convert

    folder, out = find(words[0]), Path(words[1]).expanduser()
    name = args.base or about(folder).base
    convert(folder, out, args.to, _base(name), name)
    if args.json:
        print_json({"path": str(out), "format": args.to, "base": name})
    else:
        print(f"{out}: {folder.name} in {args.to}'s format, for {name}")
    return 0


def _base(name: str) -> Path:
    """The model on this machine: its names and shapes are needed, so it is not fetched for that."""
    from macllm.hub import catalogue, store

    if not name:
        raise InputError("the adapter does not say what it was learned on; name the model with --base MODEL")
    entry = catalogue.entries().get(name.lower())
    model = store.resolve(name) or (store.resolve(str(entry.source)) if entry is not None else None)
    if model is None:
        raise InputError(
            f"the base '{name}' is not on this machine; `macllm pull` it, or name it with --base"
        )
    return model.path


def _rank(found: "About") -> str:
    return str(found.rank) if found.rank is not None else "-"


def _as_json(found: "About") -> dict[str, Any]:
    return {
        "name": found.name,
        "path": str(found.path),
        "format": found.format,
        "method": found.method,
        "rank": found.rank,
        "scale": found.scale,
        "base": found.base,
        "size_bytes": found.size_bytes,
        "parameters": found.parameters,
    }
