"""What a line that begins with a slash means: a command of the table, text to send, or a mistake to name."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from macllm.engine import settings_text
from macllm.errors import InputError
from macllm_tui.actions import Action, slash_commands

_COMMAND = re.compile(r"/([A-Za-z]+)(?=\s|$)")


@dataclass(frozen=True)
class Slash:
    """A slash command as typed: its name without the slash, and the rest of the text."""

    name: str
    argument: str

    @property
    def action(self) -> Action:
        """The action of the table that it stands for."""
        return slash_commands()[self.name]


@dataclass(frozen=True)
class Completion:
    """One thing to offer: the whole text with it, how the list shows it, and whether that can be run at once."""

    text: str
    label: str
    help: str = ""
    runs: bool = False


def parse(text: str) -> Slash | None:
    """The command that ``text`` is, or None where it is something to say.

    Only a word of letters directly after a slash at the very start can be a command: ``/usr/bin/env``,
    ``//`` and a slash after a space are text. Raises InputError for such a word that is no command, and for
    a command that takes nothing and got something.
    """
    found = _COMMAND.match(text)
    if found is None:
        return None
    name, argument = found[1].casefold(), text[found.end() :].strip()
    commands = slash_commands()
    if name not in commands:
        near = difflib.get_close_matches(name, commands, 1)
        hint = f"did you mean /{near[0]}?" if near else "/help shows them"
        raise InputError(
            f"there is no command /{found[1]} ({hint} A space before the slash sends it as text)"
        )
    if argument and " " not in commands[name].slash:
        raise InputError(
            f"/{name} stands alone; delete what follows it, or put a space before the slash to send it as text"
        )
    return Slash(name, argument)


def completions(text: str) -> list[Completion]:
    """What may follow of a command's name, or of the name of a setting. Paths are :func:`path_of`'s."""
    if not text.startswith("/") or "\n" in text:
        return []
    name, space, argument = text[1:].partition(" ")
    if not space:
        return _names(name.casefold())
    if name.casefold() == "set" and "=" not in argument:
        return _settings(argument.strip().lstrip("-").replace("_", "-").casefold())
    return []


def offered(text: str, name: str, values: Sequence[str]) -> list[Completion]:
    """The values of an argument that begin as the one typed after ``/name``."""
    typed = text.partition(" ")[2].casefold()
    return [
        Completion(f"/{name} {value}", value, runs=True)
        for value in values
        if value.casefold().startswith(typed)
    ]


def path_of(text: str) -> str | None:
    """The path typed so far after a command that takes one, else None."""
    name, space, argument = text[1:].partition(" ")
    action = slash_commands().get(name.casefold())
    if not text.startswith("/") or "\n" in text or not space or action is None:
        return None
    return argument if action.slash.endswith(" FILE") else None


def _names(typed: str) -> list[Completion]:
    found = [
        Completion(
            text=f"/{name}" + (" " if " " in action.slash else ""),
            label=action.slash,
            help=action.help,
            runs=" " not in action.slash or action.slash.endswith("]"),
        )
        for name, action in slash_commands().items()
        if name.startswith(typed)
    ]
    # what is typed in full comes first
    return sorted(found, key=lambda each: each.text.strip() != f"/{typed}")


def _settings(typed: str) -> list[Completion]:
    return [
        Completion(f"/set {setting.name}=", setting.name, setting.help)
        for setting in settings_text.SETTINGS
        if setting.name.startswith(typed) or setting.field.replace("_", "-").startswith(typed)
    ]
