"""``macllm chat``: opens the app on a terminal; plain, a line-edited chat; piped, a reply for each line."""

import argparse
import os
import re
import sys
from pathlib import Path

from macllm.cli.options import (
    add_adapter,
    add_dtype,
    add_kv_bits,
    add_sampling,
    limits_from,
    overrides_from,
    sampling_from,
)
from macllm.cli.output import tell
from macllm.errors import OptionError

HELP = (
    "Talk with a model: in the app on a terminal, line by line with --plain. Piped, each line of stdin is a "
    "message and each reply goes to stdout."
)
DEFAULT_SIZE = "120x40"
_LEAST, _MOST = (20, 10), (500, 300)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="default: the last used; plain or piped, else the starter, fetched when missing",
    )
    parser.add_argument("--system", metavar="TEXT", help="what the model is told to be")
    parser.add_argument("--plain", action="store_true", help="no screen, colour or figures: line by line")
    add_adapter(parser)
    add_dtype(parser)
    add_kv_bits(parser)
    add_sampling(parser)
    group = parser.add_argument_group("recordings (for demos, pictures and bug reports)")
    group.add_argument(
        "--record",
        type=Path,
        metavar="FILE.jsonl",
        help="keep what the engine is asked and says in a new file",
    )
    group.add_argument(
        "--replay",
        type=Path,
        metavar="FILE.jsonl",
        help="run the app on a recording, and print its last screen",
    )
    group.add_argument(
        "--size", type=_size, metavar="WxH", help=f"with --replay: columns and rows ({DEFAULT_SIZE})"
    )
    group.add_argument(
        "--screenshot", type=Path, metavar="OUT.svg", help="with --replay: write the screen as a picture"
    )
    group.add_argument("--theme", type=_theme, metavar="NAME", help="colours of the app, this time")


def run(args: argparse.Namespace) -> int:
    """Talks until the user leaves or the input ends."""
    if args.replay is not None:
        return _replay(args)
    _refuse_without_replay(args)
    if sys.stdin.isatty() and sys.stdout.isatty() and not _plain(args):
        return _app(args)
    if args.record is not None or args.theme is not None:
        option = "--record" if args.record is not None else "--theme"
        raise OptionError(f"{option} goes with the app, on a terminal and without --plain")
    return _lines(args)


def _plain(args: argparse.Namespace) -> bool:
    """Whether neither a screen nor colour is wanted, or the terminal can show neither: Textual draws on stderr."""
    return args.plain or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()


def _app(args: argparse.Namespace) -> int:
    from macllm.engine.recording import check_place
    from macllm_tui.app import Start
    from macllm_tui.entry import run as run_app

    if args.record is not None:
        check_place(args.record)  # before a model is fetched
    if args.model is not None:
        _fetch(args.model)
    start = Start(
        args.model,
        args.system or "",
        overrides_from(args),
        args.dtype,
        kv_bits=args.kv_bits,
        adapter=_adapter(args.adapter),
        theme=args.theme,
    )
    return run_app(start, record=args.record)


def _adapter(name: str | None) -> str | None:
    """The folder of an adapter. A wrong name ends it before the screen opens."""
    from macllm.adapters.kept import find

    return str(find(name)) if name is not None else None


def _fetch(name: str) -> None:
    """Has a model that was named, and is not here yet, before the screen opens. A wrong name ends it here."""
    from macllm.cli.download import DownloadDisplay
    from macllm.hub.pull import find

    with DownloadDisplay(name) as display:
        find(name, display)


def _lines(args: argparse.Namespace) -> int:
    from macllm.cli.loading import load
    from macllm.cli.talk import Talk, talk_on_terminal, talk_through_pipe
    from macllm.hub import store
    from macllm.hub.catalogue import STARTER

    name = args.model if args.model is not None else store.last_used() or STARTER
    llm = load(name, args.dtype, args.kv_bits, args.adapter)
    origin = llm.tokenizer.template_origin  # a chat without a tokenizer ends here, before a prompt is shown
    if origin != "model":
        form = "ChatML" if origin == "chatml" else "User: and Assistant:"
        tell(
            f"{llm.name} has no chat template of its own; messages are written as {form}, which it may not know"
        )
    store.mark_used(_lasting(name))
    watched = sys.stdin.isatty()
    talk = Talk(
        llm,
        args.system,
        sampling_from(args, llm.sampling),
        limits_from(args, watched=watched),
        dtype=args.dtype,
        kv_bits=args.kv_bits,
    )
    return talk_on_terminal(talk, plain=_plain(args)) if watched else talk_through_pipe(talk)


def _replay(args: argparse.Namespace) -> int:
    given: dict[str, object] = {  # all of it is in the recording
        "MODEL": args.model,
        "--system": args.system,
        "--plain": args.plain,
        "--adapter": args.adapter,
        "--dtype": args.dtype,
        "--kv-bits": args.kv_bits,
        "--record": args.record,
        **{f"the setting {name}": True for name in overrides_from(args)},
    }
    extra = next((name for name, value in given.items() if value), None)
    if extra is not None:
        raise OptionError(f"--replay shows what was recorded; leave out {extra}")
    from macllm_tui.replay import replay

    shown = replay(args.replay, args.size or _size(DEFAULT_SIZE), args.screenshot, args.theme)
    if args.screenshot is None:
        sys.stdout.write(shown)
    return 0


def _refuse_without_replay(args: argparse.Namespace) -> None:
    for option in ("size", "screenshot"):
        if getattr(args, option) is not None:
            raise OptionError(f"--{option} goes with --replay FILE.jsonl")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
    size = (int(match[1]), int(match[2])) if match is not None else (0, 0)
    if not (_LEAST[0] <= size[0] <= _MOST[0] and _LEAST[1] <= size[1] <= _MOST[1]):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a size of the form 120x40, from {_LEAST[0]}x{_LEAST[1]} to {_MOST[0]}x{_MOST[1]}"
        )
    return size


def _theme(text: str) -> str:
    from macllm_tui.themes import NAMES

    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"no theme '{text}' (there are {', '.join(NAMES)})")
    return text


def _lasting(name: str) -> str:
    """The name as it is understood from every folder."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
