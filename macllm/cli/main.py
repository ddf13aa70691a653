"""The ``macllm`` command: picks a command, imports only its module, turns errors into one sentence.

A command module ``macllm/cli/<name>.py`` has ``HELP: str``, ``configure(parser) -> None`` and
``run(args) -> int``. This module knows the names only, so ``macllm --help`` loads none of them.
"""

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from macllm.errors import InputError, MacllmError

COMMANDS = {
    "chat": "talk with a model (what `macllm` alone does)",
    "generate": "complete one prompt; text or JSON, logits for tests",
    "pull": "download a model and check it",
    "list": "show the installed models, or the catalogue",
    "chats": "list, search, export or delete what was said",
    "rm": "delete an installed model",
    "explain": "show what a model is and on which Mac it fits",
    "families": "show which architectures run, or check one against its original",
    "convert": "write a model in another precision",
    "finetune": "teach a model by example conversations or texts",
    "fuse": "write a model with an adapter in its weights",
    "adapters": "list, describe or convert adapters",
    "bench": "measure prefill and decode speed of a model",
    "kernels": "show the custom kernels, or check them on the CPU",
    "doctor": "show what this machine offers and what to improve",
}
MODULES = {"list": "list_"}  # `list` is a Python built-in

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

_REMEDIES = {
    errno.ENOSPC: "free some disk space and run it again",
    errno.EDQUOT: "free some disk space and run it again",
    errno.EACCES: "change the permissions, or choose another place",
    errno.EPERM: "change the permissions, or choose another place",
    errno.EROFS: "choose a place on another disk",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "a file is expected there, so check the path",
}


class CommandParser(argparse.ArgumentParser):
    """argparse whose errors are one sentence with a suggestion, raised as :class:`InputError`."""

    def __init__(self, prog: str, description: str) -> None:
        # abbreviations would make every later option a breaking change
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self._given: Sequence[str] = ()

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments; raises InputError."""
        self._given = argv
        # intermixed: a list of words may stand on both sides of an option; it loses what "--" says
        read = self.parse_known_args if "--" in argv else self.parse_known_intermixed_args
        args, extra = read(argv)
        if extra:
            self.error(f"'{extra[0]}' is one argument too many")
        return args

    def error(self, message: str) -> NoReturn:
        """Raises InputError; a misspelt option is named before anything that follows from it."""
        see = f"see `{self.prog} --help`"
        unknown = self._unknown_option()
        if unknown is None:
            raise InputError(f"{message}; {see}")
        options = [option for action in self._actions for option in action.option_strings]
        raise InputError(f"no option {unknown}{_suggestion(unknown, options)}; {see}")

    def _unknown_option(self) -> str | None:
        for word in self._given:
            if word == "--":
                return None
            name = word.split("=", 1)[0]
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                return name
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code. Prints errors on stderr, one sentence each."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("MACLLM_DEBUG", "") not in ("", "0")
    end = words.index("--") if "--" in words else len(words)
    if "--debug" in words[:end]:
        words.remove("--debug")
        debug = True
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a model may write what the terminal cannot show
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, so that a closed pipe is met inside this try
        return code
    except BrokenPipeError:
        # the reader went away; the interpreter would complain when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        sentence, code = describe(error)
        _complain(sentence)
        return code


def _open_standard_streams() -> None:
    """Gives a process that was started without one of the three (``<&-``, ``>&-``) an empty one.

    In this order the descriptors 0, 1 and 2 are taken, so that no file opened later becomes what a library
    prints to.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))  # for as long as the process lives
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def describe(error: Exception) -> tuple[str, int]:
    """The sentence that the user reads about ``error``, and the exit code."""
    if isinstance(error, MacllmError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        remedy = _REMEDIES.get(error.errno or 0)
        return f"{place}{error.strerror}{f'; {remedy}' if remedy else ''}", EXIT_FAILED
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected error: {what}; run again with --debug for the traceback and report it", EXIT_FAILED


def _dispatch(words: Sequence[str]) -> int:
    first = words[0] if words else "chat"
    if first in ("-h", "--help"):
        print(_help())
        return 0
    if first in ("-V", "--version"):
        from macllm import __version__

        print(f"macllm {__version__}")
        return 0
    if first not in COMMANDS:
        kind = "option" if first.startswith("-") else "command"
        names = ["--help", "--version", "--debug"] if kind == "option" else list(COMMANDS)
        raise InputError(f"no {kind} {first}{_suggestion(first, names)}; see `macllm --help`")
    module = importlib.import_module(f"macllm.cli.{MODULES.get(first, first)}")
    parser = CommandParser(f"macllm {first}", module.HELP)
    module.configure(parser)
    try:
        args = parser.parse(words[1:])
    except SystemExit:  # argparse has printed the help
        return 0
    code: int = module.run(args)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: macllm [COMMAND] [OPTIONS]\n\n"
        "Local language models on a Mac. Nothing leaves the machine.\n\n"
        f"commands:\n{rows}\n\n"
        "options:\n"
        "  -h, --help     show this, or with a command its options\n"
        "  -V, --version  show the version\n"
        "  --debug        show tracebacks (also MACLLM_DEBUG=1)\n\n"
        "`macllm` alone opens a chat with the last used model; the first time it fetches a small one."
    )


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _complain(sentence: str) -> None:
    print(f"macllm: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
