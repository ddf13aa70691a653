"""The SQLite file under the store: private, checked, set aside when damaged, its errors as sentences."""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from macllm.chats.migrations import migrate
from macllm.chats.salvage import salvage
from macllm.errors import MacllmError

_BUSY_MS = 5000  # two apps may be open; no transaction of theirs takes long
_CHECK_S = 0.1  # of the start may go into looking for damage
_STEPS = 2000  # instructions of SQLite between two looks at the clock
_DAMAGE = {"SQLITE_CORRUPT", "SQLITE_NOTADB"}
_REFUSED = {"SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"}


class _Damaged(MacllmError):
    """The file cannot be used as a database."""


@dataclass(frozen=True)
class SetAside:
    """Where a damaged database was moved, and how many of its chats could be taken over."""

    path: Path
    chats: int = 0


def open_database(path: Path) -> tuple[sqlite3.Connection, SetAside | None]:
    """The database at ``path`` at the newest schema, made where there is none.

    The second value says that a damaged one was found there. Raises MacllmError where the file cannot be read
    or written, or belongs to a newer macllm.
    """
    _make_folder(path)
    with _one_at_a_time(path):
        _make_private(path)
        try:
            return _opened(path), None
        except _Damaged:
            target = _set_aside(path)
        _make_private(path)
        connection = _opened(path)
        return connection, SetAside(target, _salvaged(target, connection))


def open_in_memory() -> sqlite3.Connection:
    """An empty database at the newest schema that is in no file."""
    return _opened(Path(":memory:"))


def _make_folder(path: Path) -> None:
    with _placed(path):
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_private(path: Path) -> None:
    """A file that only its owner reads is there before SQLite writes into it, and gives -wal and -shm its mode."""
    with _placed(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        for file in (path, *_beside(path)):
            if file.exists() and file.stat().st_mode & 0o077:
                file.chmod(0o600)


@contextlib.contextmanager
def _placed(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MacllmError(
            f"{path}: {error.strerror}; chats cannot be kept there, change its permissions or set MACLLM_HOME to a"
            " folder that can be written"
        ) from None


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two apps that start at once must not make, upgrade or set aside the same file together."""
    with _placed(path):
        descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network disk may know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _mark(path: Path) -> Path:
    """The file that says that damage was met, so that the next start looks at every page."""
    return path.with_name(f"{path.name}-damaged")


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        with told(path, opening=True):
            connection.row_factory = sqlite3.Row
            for pragma in (
                f"busy_timeout = {_BUSY_MS}",
                "foreign_keys = ON",
                "secure_delete = ON",  # what is deleted is overwritten
                "journal_mode = WAL",
                "synchronous = NORMAL",  # a power cut may cost the last words, never the file
            ):
                connection.execute(f"PRAGMA {pragma}")
            _check(connection, None if _mark(path).exists() else _CHECK_S)
            migrate(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, seconds: float | None) -> None:
    """Raises _Damaged for a damaged page found within ``seconds``; the rest is met when it is read."""
    if seconds is not None:
        end = time.monotonic() + seconds
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        verdict = "ok"
    finally:
        connection.set_progress_handler(None, 0)
    if verdict != "ok":
        raise _Damaged(verdict)


def _set_aside(path: Path) -> Path:
    """Moves the damaged file and its log away; never onto an earlier one."""
    stem = f"{path.stem}-damaged-{date.today().isoformat()}"
    number, target = 1, path.with_name(f"{stem}.db")
    while target.exists():
        number += 1
        target = path.with_name(f"{stem}-{number}.db")
    wal, shared = _beside(path)
    with told(path):
        path.rename(target)
        if wal.exists():
            wal.rename(target.with_name(f"{target.name}-wal"))
        shared.unlink(missing_ok=True)
        _mark(path).unlink(missing_ok=True)
    return target


def _salvaged(damaged: Path, connection: sqlite3.Connection) -> int:
    try:
        return salvage(damaged, connection)
    except sqlite3.Error:  # nothing of it can be read
        return 0


@contextlib.contextmanager
def told(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turns an error of SQLite, or of the file, into a MacllmError with a remedy."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if any(name.startswith(kind) for kind in _DAMAGE):
            if opening:
                raise _Damaged(f"{path} is damaged") from None
            with contextlib.suppress(OSError):
                _mark(path).touch(mode=0o600)
        raise MacllmError(f"{path}: {_reason(name, error)}") from error
    except OSError as error:
        raise MacllmError(f"{path}: {error.strerror}; check the disk and the permissions") from error


def _reason(name: str, error: sqlite3.Error) -> str:
    if name.startswith("SQLITE_FULL"):
        return "the disk is full, so this was not saved; free some space"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another macllm is writing to it; try again in a moment"
    if name.startswith(tuple(_REFUSED)):
        return (
            "it cannot be written; change its permissions or set MACLLM_HOME to a folder that can be written"
        )
    if name.startswith(tuple(_DAMAGE)):
        return "the database is damaged; start macllm again, and it is set aside and a new one begun"
    return f"{error}; free some disk space if it is full, else report this with the output of `macllm doctor`"
