"""A conversation in the terminal: the prompt, slash commands, a reply as it comes, its figures."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from macllm import paths
from macllm.cli.output import tell
from macllm.engine.events import Prefill
from macllm.engine.figures import figures
from macllm.engine.request import Limits, Sampling
from macllm.errors import InputError, MacllmError, OptionError
from macllm.hub.catalogue import STARTER

if TYPE_CHECKING:
    from macllm.api import LLM, Generation

_DIM, _BOLD, _OFF = "\033[2m", "\033[1m", "\033[0m"
_HISTORY_LENGTH = 1000
_SLOW_PROMPT = 2048  # tokens from which reading the prompt is worth a line


class Talk:
    """A conversation and what the user may change of it."""

    def __init__(self, llm: "LLM", system: str | None, sampling: Sampling, limits: Limits) -> None:
        self.llm = llm
        self.system = system
        self.sampling = sampling
        self.limits = limits
        self.cancel = threading.Event()
        self.chat = llm.chat(system)

    def reply(self, text: str, write: Callable[[str], object]) -> "Generation":
        """Sends a message; the reply's text goes to ``write`` as it comes."""
        from macllm.api import collect

        self.cancel.clear()
        events = self.chat.stream(text, sampling=self.sampling, limits=self.limits, cancel=self.cancel)

        def watched() -> Iterator[object]:
            for event in events:
                piece = getattr(event, "text", "")
                if piece:
                    write(piece)
                if isinstance(event, Prefill) and event.total - event.reused >= _SLOW_PROMPT:
                    tell(f"reading the prompt: {event.done} of {event.total} tokens")
                yield event

        return collect(watched())  # type: ignore[arg-type]

    def restart(self, system: str | None) -> None:
        """A new conversation with the same model."""
        self.system = system
        self.chat = self.llm.chat(system)


@dataclass(frozen=True)
class Command:
    """A slash command."""

    usage: str
    help: str
    run: Callable[[Talk, str], str | None]  # returns what to print; raises EndOfTalk


class EndOfTalk(Exception):
    """The user is done."""


def talk_through_pipe(talk: Talk) -> int:
    """Each line of stdin is a message, each reply goes to stdout, all else to stderr."""
    for line in sys.stdin:
        text = line.rstrip("\n")
        if text.strip():
            generation = talk.reply(text, _write)
            _write("\n")
            if generation.finish_reason == "length":
                tell(f"the reply was cut at {len(generation.tokens)} tokens; --max-tokens N allows more")
    return 0


def talk_on_terminal(talk: Talk, *, plain: bool) -> int:
    """Reads messages with line editing and history until Ctrl-D or /quit."""
    colour = not plain and "NO_COLOR" not in os.environ and sys.stdout.isatty()
    dim, bold, off = (_DIM, _BOLD, _OFF) if colour else ("", "", "")
    print(f"{bold}{talk.llm.name}{off}{dim}  /help for commands, Ctrl-C stops a reply, Ctrl-D ends{off}")
    if talk.llm.name == STARTER:
        print(f"{dim}a tiny model to try things with; `macllm list --catalogue` shows better ones{off}")
    with _history():
        while True:
            try:
                text = input("> ").strip()
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                continue
            try:
                if text.startswith("/"):
                    _say(run_command(talk, text))
                elif text:
                    _answer(talk, text, None if plain else lambda line: print(f"{dim}{line}{off}"))
            except EndOfTalk:
                return 0
            except MacllmError as error:
                tell(f"macllm: {error}")


def run_command(talk: Talk, line: str) -> str | None:
    """Runs one slash command; returns what it has to say. Raises InputError for an unknown one."""
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        raise InputError(f"there is no command /{name}; /help shows them")
    return COMMANDS[name].run(talk, rest.strip())


def _answer(talk: Talk, text: str, show: Callable[[str], object] | None) -> None:
    with _interrupt_stops(talk.cancel):
        generation = talk.reply(text, _write)
    print(" [stopped]" if generation.finish_reason == "cancelled" else "")
    if show is not None:
        show(figures(generation.metrics) + "\n")


def _help(talk: Talk, rest: str) -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    return "\n".join(f"  {command.usage:{width}}  {command.help}" for command in COMMANDS.values())


def _set(talk: Talk, rest: str) -> str:
    if not rest:
        shown = {**_values(talk.sampling), **_values(talk.limits)}
        return "\n".join(f"  {name} = {value}" for name, value in shown.items())
    name, equals, value = rest.partition("=")
    name, value = name.strip(), value.strip()
    name = {"temp": "temperature"}.get(name, name)
    if not equals:
        raise OptionError(f"/set {rest}: write it as NAME=VALUE, for example /set temp=0.7")
    changed = {name: _number(name, value)}
    if name in _values(talk.sampling):
        talk.sampling = replace(talk.sampling, **changed)  # type: ignore[arg-type]  # a field's own type
    elif name in _values(talk.limits):
        talk.limits = replace(talk.limits, **changed)  # type: ignore[arg-type]
    else:
        raise OptionError(f"/set {name}: there is no such setting; /set shows them")
    return f"  {name} = {value}"


def _values(settings: Sampling | Limits) -> dict[str, object]:
    """The settings that are one number."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    del values["logit_bias" if isinstance(settings, Sampling) else "logprobs"]
    return {name: value for name, value in values.items() if value is None or type(value) in (int, float)}


def _number(name: str, text: str) -> float | int | None:
    if text == "none" and name in ("seed", "max_tokens"):
        return None
    whole = name in ("seed", "max_tokens") or isinstance(getattr(Sampling(), name, 0.0), int)
    try:
        return int(text) if whole else float(text)
    except ValueError:
        what = "a whole number" if whole else "a number"
        raise OptionError(f"/set {name}={text}: '{text}' is not {what}") from None


def _system(talk: Talk, rest: str) -> str:
    if not rest:
        return f"  {talk.system}" if talk.system else "  there is no system prompt"
    talk.restart(rest)
    return "  new conversation with this system prompt"


def _new(talk: Talk, rest: str) -> str:
    talk.restart(talk.system)
    return "  new conversation"


def _quit(talk: Talk, rest: str) -> None:
    raise EndOfTalk


COMMANDS = {
    "help": Command("/help", "show the commands", _help),
    "set": Command("/set [NAME=VALUE]", "change a sampling setting, or show them all", _set),
    "system": Command("/system [TEXT]", "start over with this system prompt, or show it", _system),
    "new": Command("/new", "start a new conversation", _new),
    "quit": Command("/quit", "leave (also Ctrl-D)", _quit),
}


@contextlib.contextmanager
def _interrupt_stops(cancel: threading.Event) -> Iterator[None]:
    """Ctrl-C sets ``cancel``: the reply ends between two steps and what came of it stays."""
    before = signal.signal(signal.SIGINT, lambda number, frame: cancel.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with a history that lasts."""
    try:
        import readline
    except ImportError:  # a Python built without it reads plain lines
        yield
        return
    file = paths.data_dir() / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LENGTH)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.write_history_file(file)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str | None) -> None:
    if text:
        print(text)
