"""Where adapters are kept on this machine, which names they may have, and what a name or a path means."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from macllm import paths
from macllm.errors import InputError

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"  # mlx-lm's and PEFT's name
STATE = "state"  # folder of what a run is resumed from
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Existing:
    """What is there under a name; ``resumable`` where a stopped run left its state."""

    path: Path
    resumable: bool


def folder() -> Path:
    """One folder per adapter lies here."""
    return paths.data_dir() / "adapters"


def checked_name(name: str) -> str:
    """The name, or InputError in one sentence: it becomes a folder's name on any system."""
    name = name.strip()
    if not name:
        raise InputError("the adapter needs a name, for example my-adapter")
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise InputError(
            f"adapter name {name!r} cannot be a folder (expected up to 64 letters, digits, '-', '_' and '.',"
            " a letter or digit first)"
        )
    return name


def existing(name: str) -> Existing | None:
    """The adapter of this name; None where the name is free."""
    path = folder() / checked_name(name)
    return Existing(path, (path / STATE).is_dir()) if path.exists() else None


def kept() -> list[str]:
    """The names of the adapters here, sorted; runs that have saved nothing yet are none."""
    place = folder()
    found = place.iterdir() if place.is_dir() else ()
    return sorted(path.name for path in found if (path / CONFIG).is_file())


def find(name: str) -> Path:
    """The folder of an adapter: of one kept under this name, else at this path.

    Raises InputError, with the nearest names, where there is none.
    """
    name = name.strip()
    known = kept()
    if name in known:
        return folder() / name
    path = Path(name).expanduser()
    if name and path.is_dir():
        if (path / CONFIG).is_file():
            return path.resolve()
        raise InputError(f"{path}: there is no {CONFIG}; name a folder that an adapter was saved in")
    if not known:
        raise InputError(f"there is no adapter '{name}', and none kept here; name the folder of one")
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]}?" if near else f"kept here: {', '.join(known[:5])}"
    raise InputError(f"there is no adapter '{name}' ({guess}); name one of those, or a folder")


def free_name(data: str) -> str:
    """A name for an adapter that this data teaches, which nothing has yet."""
    stem = data.rstrip("/").rpartition("/")[2].removesuffix(".jsonl")
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in stem).strip("-._")[:50]
    name = clean or "adapter"
    number = 2
    found = name
    while existing(found) is not None:
        found, number = f"{name}-{number}", number + 1
    return found
