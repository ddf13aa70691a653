"""Where adapters are kept on this machine, and which names they may have."""

import re
from dataclasses import dataclass
from pathlib import Path

from macllm import paths
from macllm.errors import InputError

WEIGHTS = "adapters.safetensors"
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
