"""What the person chose for the app itself: colours, what is shown, keys. One JSON file in the data folder.

``{"theme": "paper", "sidebar": true, "metrics": true, "thinking": false, "tint": false, "recent": [],
"keys": {"new": "f9"}}``. Names this version does not know are kept as they are, so that an older
and a newer macllm can share the file. A value of the wrong kind is named and its default used.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from macllm import paths
from macllm.errors import MacllmError
from macllm_tui.themes import DEFAULT, NAMES

RECENT = 8  # models worth offering again


@dataclass(frozen=True)
class Settings:
    """The choices. ``keys`` maps an action's id to its key: ``f9``, several with commas, "" for none."""

    theme: str = DEFAULT
    sidebar: bool = True
    metrics: bool = True
    thinking: bool = False  # what a model thinks is shown unfolded
    tint: bool = False  # drafted tokens have a colour of their own
    recent: tuple[str, ...] = ()  # models used, the newest first
    keys: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def used(self, model: str) -> "Settings":
        """With ``model`` as the one last used."""
        others = tuple(name for name in self.recent if name != model)
        return replace(self, recent=(model, *others)[:RECENT])


@dataclass(frozen=True)
class Loaded:
    """Settings as read, and a sentence for each thing in the file that could not be used."""

    settings: Settings
    problems: tuple[str, ...] = ()


def settings_path() -> Path:
    """Where they are kept."""
    return paths.data_dir() / "settings.json"


def load() -> Loaded:
    """Reads the file; none there is as good as an empty one. A damaged one is set aside."""
    path = settings_path()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Loaded(Settings())
    except OSError as error:
        return Loaded(Settings(), (f"{path} cannot be read ({error.strerror}); the defaults are used.",))
    except ValueError:
        return Loaded(Settings(), (_set_aside(path),))
    if not isinstance(values, dict):
        return Loaded(Settings(), (_set_aside(path),))
    return _read(values, path)


def save(settings: Settings) -> None:
    """Replaces the file in one move; only the user can read it. Raises MacllmError where that fails."""
    path = settings_path()
    known = {name: getattr(settings, name) for name in _KINDS}
    text = json.dumps(
        {**settings.unknown, **known, "keys": dict(settings.keys)}, indent=2, ensure_ascii=False
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, beside = tempfile.mkstemp(dir=path.parent, prefix="settings-", suffix=".partial")  # mode 0600
    except OSError as error:
        raise MacllmError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except OSError as error:
        Path(beside).unlink(missing_ok=True)
        raise MacllmError(f"{path} cannot be written: {error.strerror}") from None


_KINDS: Mapping[str, str] = {
    "theme": "a theme's name",
    "sidebar": "true or false",
    "metrics": "true or false",
    "thinking": "true or false",
    "tint": "true or false",
    "recent": "a list of texts",
    "keys": 'an object of texts, for example {"new": "f9"}',
}


def _read(values: Mapping[str, Any], path: Path) -> Loaded:
    taken: dict[str, Any] = {}
    problems = []
    for name, kind in _KINDS.items():
        if name not in values:
            continue
        value = _value(name, values[name])
        if value is None:
            found = json.dumps(values[name], ensure_ascii=False)
            problems.append(f"{path}: {name}={found} must be {kind}{_choices(name)}; the default is used.")
        else:
            taken[name] = value
    unknown = {name: value for name, value in values.items() if name not in _KINDS}
    return Loaded(Settings(**taken, unknown=unknown), tuple(problems))


def _value(name: str, value: Any) -> Any:
    """The value as the field holds it; None where it is of another kind."""
    if name == "theme":
        return value if value in NAMES else None
    if name == "recent":
        return tuple(value[:RECENT]) if _texts(value, list) else None
    if name == "keys":
        good = _texts(value, dict) and _texts(list(value.values()), list)
        return value if good else None
    wanted = bool if isinstance(_DEFAULTS[name], bool) else str
    return value if isinstance(value, wanted) else None


def _texts(value: Any, container: type[list[Any]] | type[dict[str, Any]]) -> bool:
    return isinstance(value, container) and all(isinstance(each, str) for each in value)


def _choices(name: str) -> str:
    return f" ({', '.join(NAMES)})" if name == "theme" else ""


def _set_aside(path: Path) -> str:
    """Moves the damaged file to a name nobody has yet, and says so."""
    numbers = (f"settings.damaged-{number}.json" for number in range(1, 10_000))
    aside = next(place for name in numbers if not (place := path.with_name(name)).exists())
    try:
        path.rename(aside)
    except OSError as error:
        return f"{path} is damaged and cannot be moved ({error.strerror}); the defaults are used."
    return f"{path} was damaged: it is kept as {aside.name}, and the defaults are used."


_DEFAULTS = {each.name: getattr(Settings(), each.name) for each in fields(Settings)}
