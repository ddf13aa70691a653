"""Brings one file here: resumable, retried, hashed on the way, renamed only when it is whole and right.

Knows nothing about where bytes come from: an ``Open`` gives a body from a byte offset on. The unfinished
file is ``<name>.partial`` beside its target, so that a rename ends every transfer and nothing looks done before.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from macllm.errors import DownloadError
from macllm.hub.progress import Checking, Meter, Report, Retrying
from macllm.units import size

RETRIES = 5  # without a single new byte in between
CHUNK = 1 << 20


class BrokenTransferError(Exception):
    """The connection could not be made or broke; trying again may go on from the byte reached."""


@dataclass(frozen=True)
class Body:
    """Bytes of a file from ``start`` on: the offset asked for, or 0 where the server has no ranges."""

    start: int
    chunks: Iterator[bytes]
    total: int | None = None  # size of the whole file as this answer states it


Open: TypeAlias = Callable[[int], AbstractContextManager[Body]]


@dataclass(frozen=True)
class Wanted:
    """The file to bring: its name for people, its target, and what is known of its content beforehand."""

    name: str
    target: Path
    size: int | None = None
    sha256: str | None = None

    @property
    def partial(self) -> Path:
        return partial_of(self.target)


def partial_of(target: Path) -> Path:
    """Where the unfinished ``target`` lies."""
    return target.with_name(target.name + ".partial")


def bytes_here(wanted: Wanted) -> int:
    """How many bytes a resumed transfer need not fetch again."""
    try:
        size = wanted.partial.stat().st_size
    except OSError:
        return 0
    return size if wanted.size is None or size <= wanted.size else 0


def fetch(wanted: Wanted, open_at: Open, meter: Meter, *, pause: Callable[[float], None] = time.sleep) -> str:
    """Brings ``wanted`` to its target and returns its SHA-256; raises DownloadError, keeping what arrived.

    ``meter`` must already count :func:`bytes_here`, and the file's size if that is known. Interrupted at any byte,
    the next call goes on there.
    """
    wanted.target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(wanted) as file, _disk_errors(wanted):
        receiver = _Receiver(file, wanted, meter)
        receiver.read_present()
        _receive_all(receiver, open_at, pause)
        file.flush()
        _verify(wanted, receiver)
        wanted.partial.replace(wanted.target)
    meter.finish()
    return receiver.sha256


class _Receiver:
    """The open partial file with its length and running hash."""

    def __init__(self, file: BinaryIO, wanted: Wanted, meter: Meter) -> None:
        self.file = file
        self.wanted = wanted
        self.meter = meter
        self.size = wanted.size
        self.offset = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def complete(self) -> bool:
        return self.size is not None and self.offset >= self.size

    def read_present(self) -> None:
        """Hashes what an earlier transfer left."""
        present = bytes_here(self.wanted)
        self.file.truncate(present)
        self.file.seek(0)
        for digest_input in _chunks(self.file, self.wanted.name, present, self.meter.report):
            self._hash.update(digest_input)
        self.offset = present

    def restart(self) -> None:
        """Throws away what is here: the server sends the file from its first byte."""
        self.meter.add(-self.offset)
        self.file.seek(0)
        self.file.truncate()
        self.offset = 0
        self._hash = hashlib.sha256()

    def take(self, body: Body) -> None:
        """Writes one answer; raises BrokenTransferError when it ends before the file does."""
        if body.start != self.offset:
            self.restart()
        if self.size is None and body.total is not None:
            self.size = body.total
            self.meter.expect(body.total)
        for chunk in body.chunks:
            self.file.write(chunk)
            self._hash.update(chunk)
            self.offset += len(chunk)
            self.meter.add(len(chunk))
        if self.size is None:
            self.size = self.offset  # neither the listing nor the answer said: the end is the end
        if self.offset < self.size:
            raise BrokenTransferError(
                f"the server closed the connection {self.size - self.offset} bytes early"
            )


def _receive_all(receiver: _Receiver, open_at: Open, pause: Callable[[float], None]) -> None:
    name, failures = receiver.wanted.name, 0
    receiver.meter.start(name)
    while not receiver.complete:
        before = receiver.offset
        try:
            with open_at(receiver.offset) as body:
                receiver.take(body)
        except BrokenTransferError as error:
            failures = 0 if receiver.offset > before else failures + 1
            if failures > RETRIES:
                raise DownloadError(
                    f"{name}: the transfer broke at byte {receiver.offset} of {receiver.size or 'an unknown number'}"
                    f" ({error}); run the same command again to resume it there"
                ) from error
            wait_s = min(2.0**failures - 1.0, 15.0)
            receiver.meter.report(Retrying(name, str(error), wait_s))
            pause(wait_s)
        else:
            return


def _verify(wanted: Wanted, receiver: _Receiver) -> None:
    problem = None
    if receiver.size is not None and receiver.offset != receiver.size:
        problem = f"{receiver.offset} bytes arrived where {receiver.size} were announced"
    elif wanted.sha256 is not None and receiver.sha256 != wanted.sha256:
        problem = f"its SHA-256 is {receiver.sha256} where {wanted.sha256} was expected"
    if problem is not None:
        wanted.partial.unlink()
        receiver.meter.add(-receiver.offset)
        raise DownloadError(
            f"{wanted.name}: the download is damaged ({problem}) and was deleted; run the same command again,"
            " and if it happens twice report it to whoever publishes the file"
        )


@contextmanager
def _locked(wanted: Wanted) -> Iterator[BinaryIO]:
    """The partial file, opened for one process; unbuffered, so that a kill loses nothing that arrived."""
    descriptor = os.open(wanted.partial, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        if not try_lock(file):
            raise DownloadError(
                f"{wanted.name} is being downloaded by another process; wait for it to end, or stop it"
            )
        yield file


def try_lock(file: BinaryIO) -> bool:
    """Takes the file's lock; False when another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: the hash still catches two writers
    return True


@contextmanager
def _disk_errors(wanted: Wanted) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DownloadError(
            f"{wanted.name}: the disk of {wanted.target.parent} is full; free some space and run the same command"
            " again to resume"
        ) from error


def _chunks(file: BinaryIO, name: str, total: int, report: Report) -> Iterator[bytes]:
    done = 0
    while chunk := file.read(CHUNK):
        yield chunk
        done += len(chunk)
        if done % (64 * CHUNK) == 0 or done == total:
            report(Checking(name, done, total))


def sha256_of(path: Path, name: str, report: Report) -> str:
    """The SHA-256 of a file on this disk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in _chunks(file, name, path.stat().st_size, report):
            digest.update(chunk)
    return digest.hexdigest()


def require_space(folder: Path, needed: int, what: str, disk_free: Callable[[Path], int]) -> None:
    """Raises DownloadError naming both numbers when ``folder``'s disk has fewer than ``needed`` free bytes."""
    free = disk_free(folder)
    if free < needed:
        raise DownloadError(
            f"{what} needs {needed} bytes ({size(needed)}) more and the disk of {folder} has {free} bytes"
            f" ({size(free)}) free; free some space, or set MACLLM_HOME or HF_HOME to a larger disk"
        )


def remove_stale_partials(folder: Path) -> None:
    """Deletes what abandoned transfers left in ``folder``; leaves those that a process is working on."""
    for path in folder.glob("*.partial"):
        with suppress(OSError), path.open("r+b") as file:
            if try_lock(file):
                path.unlink()
