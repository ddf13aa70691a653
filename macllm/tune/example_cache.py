"""Examples on disk, so that rows are tokenized once: one file for what was read, under a name of its content.

A file is written beside its place and renamed. One that is damaged, or of another format, counts as not there.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from macllm import paths
from macllm.tokenizer import Tokenizer
from macllm.tune.examples import Example, ExampleSettings

FORMAT = 1  # to be raised whenever the same rows become other examples
KEPT = 16  # files; the oldest go
_DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def folder() -> Path:
    """Examples can be made again, so they lie where the system may clear them away."""
    return paths.cache_dir() / "examples"


def key(files: Sequence[Path], tokenizer: Tokenizer, settings: ExampleSettings) -> str:
    """A digest of all that the examples follow from: the files' content, the tokenizer, how rows are rendered."""
    told = asdict(settings)
    if not any("strftime_now" in source for source in tokenizer.profile.templates.values()):
        del told["date"]  # it is written nowhere
    digest = hashlib.sha256(f"{FORMAT} {tokenizer.fingerprint} {json.dumps(told, sort_keys=True)}".encode())
    for file in files:
        with file.open("rb") as content:
            digest.update(f" {file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def load(name: str) -> dict[str, tuple[Example, ...]] | None:
    """The examples by file under a key; None where they have to be made."""
    path = folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["format"]) != FORMAT:
                return None
            files = [str(file) for file in arrays["files"]]
            found = {file: _unpacked(arrays, index) for index, file in enumerate(files)}
        os.utime(path)  # used now: it goes last
    except _DAMAGES:
        return None
    return found


def save(name: str, examples: dict[str, tuple[Example, ...]]) -> None:
    """Keeps the examples by file under a key. Where the disk takes no more, they are made again next time."""
    arrays: dict[str, NDArray[Any]] = {"format": np.array(FORMAT), "files": np.array(list(examples))}
    for index, made in enumerate(examples.values()):
        arrays |= _packed(made, index)
    path = folder() / f"{name}.npz"
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        beside.replace(path)
        _forget_oldest()
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _packed(examples: Sequence[Example], index: int) -> dict[str, NDArray[Any]]:
    ids = [example.ids for example in examples]
    learned = [example.learned for example in examples]
    return {
        f"{index}.lengths": np.array([len(example) for example in examples], dtype=np.int32),
        f"{index}.ids": np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        f"{index}.learned": np.packbits(np.concatenate(learned) if learned else np.zeros(0, dtype=np.bool_)),
        f"{index}.truncated": np.array([example.truncated for example in examples], dtype=np.bool_),
        f"{index}.places": np.array([example.place for example in examples], dtype=np.str_),
    }


def _unpacked(arrays: "np.lib.npyio.NpzFile", index: int) -> tuple[Example, ...]:
    lengths, ids, bits, truncated, places = (
        arrays[f"{index}.{part}"] for part in ("lengths", "ids", "learned", "truncated", "places")
    )
    if int(lengths.sum()) != len(ids):
        raise ValueError("lengths and ids do not go together")
    learned = np.unpackbits(bits, count=len(ids)).astype(np.bool_)
    ends = np.cumsum(lengths)[:-1]
    parts = zip(np.split(ids, ends), np.split(learned, ends), places, truncated, strict=True)
    if not len(lengths):
        return ()
    return tuple(Example(own, mask, str(place), bool(cut)) for own, mask, place, cut in parts)


def _forget_oldest() -> None:
    """Removes what was not used for longest, and what a stopped run left beside."""
    files = sorted(folder().iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[KEPT:]:
        file.unlink(missing_ok=True)
