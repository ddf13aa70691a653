"""Keys of the actions: Textual's bindings made from the table, the person's own keys checked, and how keys are written.

Bindings carry the action's id, so that ``App.set_keymap(keymap(settings.keys).overrides)`` moves them. An action
without a key is bound to one that no keyboard has: so it too can be given a real one.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from textual.binding import Binding
from textual.keys import KEY_NAME_REPLACEMENTS, REPLACED_KEYS, Keys, key_to_character

from macllm_tui.actions import ACTIONS, BY_ID, Action, Place

_MODIFIERS = frozenset({"ctrl", "shift", "alt", "super", "meta", "hyper"})
_CHARACTER_NAMES = {
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "question_mark": "?",
    "slash": "/",
}
_SAME_AS_OTHERS = ("ctrl+i", "ctrl+m", "ctrl+h")  # a terminal sends tab, enter and backspace for them
_ALIASES = {"esc": "escape", "return": "enter"}
_SHORT = {"escape": "esc", "enter": "⏎", "up": "↑", "down": "↓", "left": "←", "right": "→"}
_LONG = {"escape": "esc", "pageup": "page up", "pagedown": "page down"}


@dataclass(frozen=True)
class Keymap:
    """The keys in force by action id ("" for none), those that differ from the table, and what was refused."""

    keys: Mapping[str, str]
    overrides: Mapping[str, str]  # for App.set_keymap
    problems: tuple[str, ...] = ()


def bindings(*places: Place) -> list[Binding]:
    """The bindings of everything that can be done in these places, keys as in the table."""
    return [
        Binding(
            action.key or _unbound(action.id),
            action.id,
            action.title,
            show=action.footer and bool(action.key),
            tooltip=action.help,
            id=action.id,
        )
        for action in ACTIONS
        if action.place in places
    ]


def keymap(keys: Mapping[str, str]) -> Keymap:
    """The table's keys with the person's own over them. What cannot be is named, and the default stays."""
    wanted: dict[str, str] = {}
    problems = []
    for id_, text in keys.items():
        try:
            wanted[id_] = _checked(id_, text)
        except ValueError as problem:
            problems.append(str(problem))
    while (clash := _clash(wanted)) is not None:
        given_up, other, key = clash
        problems.append(
            f"keys: {given_up}={keys[given_up]!r} is not used, since {key} is the key of {other}; "
            f"give one of them another key."
        )
        del wanted[given_up]
    force = {action.id: wanted.get(action.id, action.key) for action in ACTIONS}
    overrides = {id_: key or _unbound(id_) for id_, key in wanted.items() if key != BY_ID[id_].key}
    return Keymap(force, overrides, tuple(problems))


def keys_in_force(app: object) -> Mapping[str, str]:
    """The keys of all actions in this app, whose settings may have moved them."""
    return keymap(getattr(getattr(app, "settings", None), "keys", {})).keys


def called(app: object, id_: str) -> str:
    """How to do an action in this app: its key as people write it, else its slash command."""
    key = keys_in_force(app)[id_].partition(",")[0]
    return key_name(key) if key else BY_ID[id_].slash.partition(" ")[0]


def key_name(key: str) -> str:
    """A key as people write it: ``ctrl+n``, ``[``, ``esc``."""
    modifiers, bare = _parts(key)
    return "+".join([*modifiers, _LONG.get(bare, _character(bare))])


def short_key_name(key: str) -> str:
    """A key as a footer has room for it: ``^n``, ``⏎``, ``f1``."""
    modifiers, bare = _parts(key)
    bare = _SHORT.get(bare, _character(bare))
    if modifiers == ["ctrl"]:
        return f"^{bare}"
    return "+".join([*modifiers, bare])


def key_names(keys: str) -> str:
    """All keys of an action as people write them, or "" where it has none."""
    return ", ".join(key_name(key) for key in keys.split(",") if key)


def _parts(key: str) -> tuple[list[str], str]:
    *modifiers, bare = key.split("+") if key != "+" else ["+"]
    return modifiers, bare


def _character(bare: str) -> str:
    if len(bare) == 1 or bare in Keys._value2member_map_:
        return bare
    return _CHARACTER_NAMES.get(bare) or _typed(bare) or bare


def _typed(bare: str) -> str:
    """The character that a key types, or ""."""
    character = key_to_character(REPLACED_KEYS.get(bare, bare)) or ""
    return character if character.isprintable() else ""  # "esc" is also a name of the control character


def _unbound(id_: str) -> str:
    return f"unbound-{id_}"


def _checked(id_: str, text: str) -> str:
    """The keys in Textual's names. Raises ValueError with the sentence."""
    action = BY_ID.get(id_)
    if action is None:
        raise ValueError(f"keys: there is no action {id_!r}; /help lists their names.")
    keys = [_normal(id_, key.strip()) for key in text.split(",")] if text.strip() else []
    own = action.key.split(",")
    for key in keys:
        if action.place != "message" and key not in own:
            _refuse_typing(action, key)
    return ",".join(keys)


def _normal(id_: str, key: str) -> str:
    modifiers, bare = _parts(key)
    bare = _ALIASES.get(bare, bare)
    known = bare in Keys._value2member_map_ or bool(_typed(bare))
    if not bare or not known or not set(modifiers) <= _MODIFIERS or len(set(modifiers)) != len(modifiers):
        raise ValueError(f"keys: {id_}={key!r} is not a key; write it as ctrl+n, f2 or alt+up.")
    if len(bare) == 1 and not bare.isalnum():
        bare = unicodedata.name(bare).lower().replace("-", "_").replace(" ", "_")
        bare = KEY_NAME_REPLACEMENTS.get(bare, bare)
    return "+".join([*sorted(modifiers), bare])  # as a press of it is named


def _refuse_typing(action: Action, key: str) -> None:
    """What types or edits in the prompt must stay there."""
    modifiers, bare = _parts(key)
    types = set(modifiers) <= {"shift"} and bool(_typed(bare))
    if types or key in _editing_keys():
        raise ValueError(
            f"keys: {action.id}={key_name(key)!r} is a key that the prompt needs for typing; "
            f"use one with ctrl or alt, or a function key."
        )


@cache
def _editing_keys() -> frozenset[str]:
    from textual.widgets import TextArea

    bound = (
        key for binding in TextArea.BINDINGS if isinstance(binding, Binding) for key in binding.key.split(",")
    )
    return frozenset({*bound, *_SAME_AS_OTHERS, "enter", "tab", "shift+tab", "ctrl+c"})


def _clash(wanted: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The last of the person's keys that another action has too: its action, the other one, the key."""
    found = None
    for id_ in wanted:
        for other in ACTIONS:
            if other.id == id_ or not _meet(BY_ID[id_].place, other.place):
                continue
            theirs = set(_each(wanted.get(other.id, other.key)))
            same = next((key for key in _each(wanted[id_]) if key in theirs), None)
            if same is not None:
                found = id_, other.id, same
    return found


def _each(keys: str) -> Iterator[str]:
    """The keys under one name each: the table writes ``left_square_bracket``, a person ``[``."""
    return (key_name(key) for key in keys.split(",") if key)


def _meet(one: Place, other: Place) -> bool:
    """Both places can have the focus at once: what works in the chat works everywhere."""
    return one == other or "chat" in (one, other)
