"""Arrays on disk that can be made again, each file under a name of what it follows from.

A file is written beside its place and renamed. One that is damaged, or of another format, counts as not there.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

KEPT = 16  # files of a folder; the oldest go
_DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def load(path: Path, read: Callable[["np.lib.npyio.NpzFile"], T | None]) -> T | None:
    """What ``read`` makes of the file's arrays; None where it is not there, damaged, or ``read`` gives None."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = read(arrays)
        os.utime(path)  # used now: it goes last
    except _DAMAGES:
        return None
    return found


def save(path: Path, arrays: Mapping[str, NDArray[Any]], kept: int = KEPT) -> None:
    """Keeps the arrays; the oldest files of the folder go. Where the disk takes no more, nothing is kept."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        beside.replace(path)
        _forget_oldest(path.parent, kept)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _forget_oldest(folder: Path, kept: int) -> None:
    """Removes what was not used for longest, and what a stopped run left beside."""
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[kept:]:
        file.unlink(missing_ok=True)
