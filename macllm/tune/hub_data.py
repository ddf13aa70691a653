"""Data sets by their names on Hugging Face, read with the ``datasets`` library and written down as JSONL.

From there on they are files like others: the same checks, the same places in what is said of a row.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macllm import paths
from macllm.errors import InputError

KEPT = 4  # data sets; the oldest go
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]*))?(?::([\w.\-\[\]:%]+))?")
_SPLITS = {  # what splits are called elsewhere, by our files
    "train.jsonl": ("train",),
    "valid.jsonl": ("validation", "valid", "val", "dev"),
    "test.jsonl": ("test",),
}
_ENDINGS = (
    ".jsonl",
    ".json",
    ".txt",
    ".csv",
    ".parquet",
    ".gz",
    ".zip",
)  # a file that is not there is no name
_EXTRA = "pip install 'macllm[datasets]'"


@dataclass(frozen=True)
class HubName:
    """``org/name``, perhaps ``:config`` and ``:split``, as the library takes them."""

    path: str
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        ending = (
            f":{self.config or ''}:{self.split}" if self.split else f":{self.config}" if self.config else ""
        )
        return f"{self.path}{ending}"


def folder() -> Path:
    """They can be written again, so they lie where the system may clear them away."""
    return paths.cache_dir() / "datasets"


def parse(text: str) -> HubName | None:
    """The name that a text is; None where it can be none, or is meant for a file of this machine."""
    found = _NAME.fullmatch(text)
    if found is None or text.startswith(".") or text.endswith(_ENDINGS) or Path(text.split("/")[0]).exists():
        return None
    return HubName(found[1], found[2] or None, found[3])


def written(name: HubName) -> Path:
    """A folder with train.jsonl and, where the data set has them, valid.jsonl and test.jsonl.

    A split that is named becomes train.jsonl alone. Raises InputError in one sentence where the library is not
    installed, where it does not find what is named, or where rows cannot be written as JSON.
    """
    splits = _splits(name)
    fingerprint = " ".join(f"{file} {rows._fingerprint}" for file, rows in splits.items())
    place = folder() / hashlib.sha256(f"{name} {fingerprint}".encode()).hexdigest()[:32]
    if not place.is_dir():
        _write(name, splits, place)
        _forget_oldest()
    place.touch()  # used now: it goes last
    return place


def _splits(name: HubName) -> dict[str, Any]:
    """The rows of each of our files, as the library has them."""
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{name}: there is no such file or folder, and as the data set of that name on Hugging Face it needs a"
            f" library that is not installed; {_EXTRA}, or name a .jsonl file"
        ) from None
    try:
        with _quiet(datasets):
            found = datasets.load_dataset(name.path, name.config, split=name.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"{name}: there is no such file or folder, and as a data set of Hugging Face it cannot be read ({first});"
            " write it as org/name, org/name:config or org/name:config:split"
        ) from None
    if name.split is not None:
        return {"train.jsonl": found}
    chosen = {}
    for file, others in _SPLITS.items():
        split = next((other for other in others if other in found), None)
        if split is not None:
            chosen[file] = found[split]
    if "train.jsonl" not in chosen:
        named = HubName(name.path, name.config, next(iter(found), "train"))
        raise InputError(f"{name}: it has no split 'train' but {', '.join(found)}; name one, such as {named}")
    return chosen


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the library's own progress bars, which would run through what a screen shows."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _write(name: HubName, splits: Mapping[str, Any], place: Path) -> None:
    """The files, in a folder that appears whole."""
    partial = place.with_name(f".partial-{place.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for file, rows in splits.items():
            with (partial / file).open("w", encoding="utf-8") as out:
                for number, row in enumerate(rows):
                    out.write(_line(name, file, number, row))
        partial.rename(place)
    except OSError as error:
        raise InputError(
            f"{place}: the rows of {name} cannot be written ({error.strerror}); make room"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _line(name: HubName, file: str, number: int, row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(_without_none(row), ensure_ascii=False) + "\n"
    except (TypeError, ValueError):
        column = next((key for key, value in row.items() if not _is_plain(value)), "?")
        kind = type(row[column]).__name__ if column in row else "?"
        raise InputError(
            f"{name}: column {column!r} holds what is no text ({kind}, row {number} of {file}); choose a data set"
            " of text"
        ) from None


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _without_none(value: Any) -> Any:
    """Without what a table has only because other rows have it."""
    if isinstance(value, Mapping):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def _forget_oldest() -> None:
    places = sorted(folder().iterdir(), key=lambda place: place.stat().st_mtime, reverse=True)
    for place in places[KEPT:]:
        shutil.rmtree(place, ignore_errors=True)
