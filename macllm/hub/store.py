"""The models installed on this machine: one folder each with a ``macllm.json``, found by name, source or path."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from macllm import paths
from macllm.errors import ConfigError, SourceError
from macllm.hub.source import checked_name, unknown_name

RECORD = "macllm.json"
RECORD_FORMAT = 1
_USED = "last_used.json"
_GGUF_TYPE = re.compile(r"(?i)[.-]((?:I?Q\d\w*|MXFP4\w*|BF16|F16|F32))(?:-\d{5}-of-\d{5})?\.gguf$")


@dataclass(frozen=True)
class StoredFile:
    """One file of a model, relative to the model's folder; ``sha256`` is None where nobody computed it."""

    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Installed:
    """A model on this machine.

    ``path`` is what is loaded: a folder, or a .gguf file. ``revision`` is the commit of a repository.
    ``owned`` tells whether macllm fetched the files, so that removing the model may delete them.
    """

    name: str
    source: str
    path: Path
    revision: str | None = None
    files: tuple[StoredFile, ...] = ()
    pulled: str = ""
    owned: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> bool:
        """Whether the files are gone: deleted by another tool, or on a disk that is not connected."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return not self.path.exists() or not all((folder / file.path).exists() for file in self.files)

    @property
    def format(self) -> str:
        """``gguf`` or ``safetensors``."""
        return "gguf" if self.path.suffix == ".gguf" else "safetensors"

    @property
    def quantization(self) -> str:
        """As the files state it: ``Q4_1``, ``4 bit``, ``mxfp4``; empty where they do not."""
        if self.format == "gguf":
            return gguf_quantization(self.path.name)
        return _folder_quantization(self.path / "config.json")


def gguf_quantization(file: str) -> str:
    """``Q4_K_M``, ``BF16``: as a .gguf file's name states it; empty where it does not."""
    match = _GGUF_TYPE.search(file)
    return match[1].upper() if match else ""


@dataclass(frozen=True)
class Removed:
    """What :func:`remove` did: bytes freed, or in ``kept`` where files still are that macllm did not fetch."""

    name: str
    freed_bytes: int
    kept: Path | None


def installed() -> list[Installed]:
    """All installed models by name; raises ConfigError for a damaged record."""
    root = paths.models_dir()
    if not root.is_dir():
        return []
    return [_read(folder) for folder in sorted(root.iterdir()) if (folder / RECORD).is_file()]


def resolve(name: str) -> Installed | None:
    """The model that ``name`` means on this machine, without any network: an installed name (whatever its case),
    the source it was pulled from, or a path. None when there is none.

    Raises ConfigError when the record of that very model is damaged.
    """
    by_name = named(name)
    if by_name is not None:
        return None if by_name.missing else by_name
    wanted = name.strip().removeprefix("hf:").lower()
    for folder in _folders():
        try:
            model = _read(folder)
        except ConfigError:
            continue  # another model's record; `macllm list` reports it
        if model.source.lower() == wanted and not model.missing:
            return model
    path = Path(name).expanduser()
    return at_path(path.resolve()) if path.exists() else None


def named(name: str) -> Installed | None:
    """The record of this name, files present or not."""
    for folder in _folders():
        if folder.name.lower() == name.lower():
            return _read(folder)
    return None


def at_path(path: Path) -> Installed:
    """A model that was never pulled: the folder or file itself."""
    return Installed(path.stem if path.is_file() else path.name, str(path), path, files=_files_at(path))


def local_files(path: Path) -> tuple[StoredFile, ...]:
    """What a record says of a local model."""
    return _files_at(path)


def folder_of(name: str) -> Path:
    """The folder of an installed model of this name, existing or not; raises SourceError for an unusable name."""
    return paths.models_dir() / checked_name(name)


def save(model: Installed) -> None:
    """Writes the record of ``model``; until then the model does not exist."""
    folder = folder_of(model.name)
    folder.mkdir(parents=True, exist_ok=True)
    inside = model.path.is_relative_to(folder)
    record = {
        "format": RECORD_FORMAT,
        "source": model.source,
        "revision": model.revision,
        "path": str(model.path.relative_to(folder) if inside else model.path),
        "owned": model.owned,
        "pulled": model.pulled or datetime.now(UTC).isoformat(timespec="seconds"),
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in model.files],
    }
    try:
        _write_json(folder / RECORD, record)
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where it was made for this record
        raise


def remove(name: str) -> Removed:
    """Deletes an installed model: its record, and its files when macllm fetched them and no other model uses them.

    Raises SourceError when there is no such model. A damaged record is deleted with its folder.
    """
    folder = next((folder for folder in _folders() if folder.name.lower() == name.lower()), None)
    if folder is None:
        raise SourceError(unknown_installed(name))
    try:
        model: Installed | None = _read(folder)
    except ConfigError:
        model = None
    freed, kept = 0, None
    if model is not None and model.path.is_relative_to(folder):
        freed = model.size_bytes
    elif model is not None and model.owned:
        freed = _remove_from_cache(model)
    elif model is not None and model.path.exists():
        kept = model.path
    shutil.rmtree(folder)
    _forget_use(folder.name)
    return Removed(folder.name, freed, kept)


def unknown_installed(name: str) -> str:
    """The sentence about a name that is not installed."""
    names = [folder.name for folder in _folders()]
    if not names:
        return f"'{name}' is not installed, and nothing else is; `macllm pull` installs a model"
    sentence = unknown_name(name, names).split(";", 1)[0]
    return (
        f"{sentence.replace('no model or path', 'no installed model')}; `macllm list` shows what is installed"
    )


def mark_used(name: str) -> None:
    """Remembers that the model ``name`` (or the path) was just used, where that can be written."""
    used = _uses()
    used[name] = datetime.now(UTC).isoformat(timespec="microseconds")
    with contextlib.suppress(OSError):  # a convenience: a full or read-only disk does not end a chat
        _write_json(paths.models_dir() / _USED, used)


def last_used() -> str | None:
    """The name (or path) of the model used last, if it is still there."""
    for name, _ in sorted(_uses().items(), key=lambda item: item[1], reverse=True):
        if resolve(name) is not None or Path(name).exists():
            return name
    return None


def used_at(name: str) -> str | None:
    """When the model was last used, in ISO 8601, or None."""
    return _uses().get(name)


def _forget_use(name: str) -> None:
    used = _uses()
    if used.pop(name, None) is not None:
        _write_json(paths.models_dir() / _USED, used)


def _uses() -> dict[str, str]:
    try:
        raw = json.loads((paths.models_dir() / _USED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a convenience: losing it costs one choice
    if not isinstance(raw, dict):
        return {}
    return {name: when for name, when in raw.items() if isinstance(when, str)}


def _folders() -> Sequence[Path]:
    root = paths.models_dir()
    return sorted(path.parent for path in root.glob(f"*/{RECORD}")) if root.is_dir() else ()


def _read(folder: Path) -> Installed:
    file = folder / RECORD
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["format"] != RECORD_FORMAT:
            raise ValueError(f"format {raw['format']} where {RECORD_FORMAT} is known")
        return Installed(
            name=folder.name,
            source=_text(raw["source"]),
            path=folder / _text(raw["path"]),
            revision=None if raw["revision"] is None else _text(raw["revision"]),
            files=tuple(StoredFile(_text(f["path"]), int(f["size"]), f["sha256"]) for f in raw["files"]),
            pulled=_text(raw["pulled"]),
            owned=raw["owned"] is True,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file} is damaged ({type(error).__name__}: {error}); run `macllm rm {folder.name}` and pull the model"
            " again"
        ) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # the process's own file: two writers must not meet in one
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:  # one from writing does not say where
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def _files_at(path: Path) -> tuple[StoredFile, ...]:
    if path.is_file():
        return (StoredFile(path.name, path.stat().st_size),)
    found = (file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith("."))
    return tuple(StoredFile(file.name, file.stat().st_size) for file in found)


def _folder_quantization(config: Path) -> str:
    try:
        raw = json.loads(config.read_text(encoding="utf-8"))
        scheme = raw.get("quantization") or {}
        mode, bits = scheme.get("mode", "affine"), scheme.get("bits")
    except (OSError, ValueError, AttributeError):
        return ""
    if mode != "affine":
        return str(mode)
    return f"{bits} bit" if bits else ""


def _remove_from_cache(model: Installed) -> int:
    from macllm.hub import cache

    shared: set[Path] = set()
    for folder in _folders():
        if folder.name == model.name:
            continue
        try:
            other = _read(folder)
        except ConfigError:
            continue
        shared |= _absolute(other)
    return cache.delete(_absolute(model) - shared)


def _absolute(model: Installed) -> set[Path]:
    folder = model.path.parent if model.path.suffix == ".gguf" else model.path
    return {folder / file.path for file in model.files}
