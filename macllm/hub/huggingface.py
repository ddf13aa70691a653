"""Fetches a model from the Hugging Face hub into the cache that all tools share.

The files go to the shared cache, pinned to a commit, because what lies there is not downloaded a second time by
mlx-lm, transformers or LM Studio, nor by macllm what they already have. The hub's own client (2.4) begins an
interrupted file again from its first byte; so large files are brought here by :mod:`macllm.hub.transfer`, which
resumes, to where the cache keeps finished contents. The client then finds them there and does the rest: small
files, references and the snapshot folder, whose layout stays its business.
"""

import glob
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.errors import DownloadError
from macllm.hub import cache
from macllm.hub.choice import Choice, RemoteFile, choose
from macllm.hub.http import CONNECT_S
from macllm.hub.hub_body import open_file
from macllm.hub.hub_errors import explained, not_a_hub, unreachable
from macllm.hub.progress import Meter, Planned, Report, ignore
from macllm.hub.source import HubSource
from macllm.hub.store import StoredFile
from macllm.hub.transfer import Wanted, bytes_here, fetch, remove_stale_partials, require_space, sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ResolvedRevision
    from tqdm.std import tqdm  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Fetched:
    """A model in the cache: what to load, its commit, its files, and whether any byte had to be fetched."""

    path: Path
    revision: str
    files: tuple[StoredFile, ...]
    downloaded: bool


@dataclass(frozen=True)
class _Plan:
    source: HubSource
    revision: "ResolvedRevision"
    choice: Choice

    @property
    def commit(self) -> str:
        return self.revision.resolved

    @property
    def total(self) -> int:
        return sum(file.size for file in self.choice.files)

    @property
    def folder(self) -> Path:
        return cache.snapshot_folder(self.source.repo, self.commit)

    def blob(self, file: RemoteFile) -> Path:
        return cache.repo_folder(self.source.repo) / "blobs" / file.blob

    def wanted(self, file: RemoteFile) -> Wanted:
        return Wanted(file.path, self.blob(file), file.size, file.sha256)

    def missing(self) -> tuple[RemoteFile, ...]:
        """Files of which the cache has neither the snapshot's entry nor the content."""

        def here(path: Path, size: int) -> bool:
            return path.is_file() and path.stat().st_size == size

        return tuple(
            file
            for file in self.choice.files
            if not here(self.folder / file.path, file.size) and not here(self.blob(file), file.size)
        )


def download(
    source: HubSource,
    report: Report,
    disk_free: Callable[[Path], int],
    *,
    sums: Mapping[str, str] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Brings ``source`` into the cache; raises SourceError or DownloadError. ``sums`` are SHA-256 by file name.

    Without a connection, a complete copy in the cache is used.
    """
    with explained(source), _quiet():
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub.errors import OfflineModeIsEnabled

        api = HfApi(library_name="macllm")
        try:
            # first, because it fails at once without a connection where the others try for half a minute
            api.model_info(source.repo, revision=source.revision, timeout=CONNECT_S)
            revision = api.resolve_revision(source.repo, revision=source.revision)
            files = _listing(api, source.repo, revision.resolved)
        except (httpx2.TransportError, OfflineModeIsEnabled) as error:
            return _from_cache(api, source, error)
        except (KeyError, TypeError, AssertionError) as error:
            raise not_a_hub(source) from error  # the client takes the answer's shape for granted
        plan = _Plan(source, revision, choose(source, files))
        _check_sums(plan, sums or {})
        missing = plan.missing()
        present = plan.total - sum(file.size for file in missing)
        present += sum(bytes_here(plan.wanted(file)) for file in missing if file.sha256)
        report(Planned(str(source), len(plan.choice.files), plan.total, present))
        require_space(cache.repo_folder(source.repo), plan.total - present, str(source), disk_free)
        meter = Meter(report, plan.total, present=present)
        for file in missing:
            if file.sha256 is not None:
                fetch(plan.wanted(file), open_file(source.repo, plan.commit, file), meter, pause=pause)
        return _finish(plan, missing, meter)


def _listing(api: "HfApi", repo: str, commit: str) -> list[RemoteFile]:
    from huggingface_hub.hf_api import RepoFile

    return [
        RemoteFile(file.path, file.size, file.blob_id, file.lfs.sha256 if file.lfs else None)
        for file in api.list_repo_tree(repo, recursive=True, revision=commit)
        if isinstance(file, RepoFile)
    ]


def _finish(plan: _Plan, missing: Sequence[RemoteFile], meter: Meter) -> Fetched:
    """The client's part: small files, and the snapshot folder that names all of them; then every file is checked."""
    from huggingface_hub import snapshot_download

    small = [file for file in missing if file.sha256 is None]
    if small:
        meter.start(small[0].path)
    snapshot_download(
        plan.source.repo,
        revision=plan.revision,
        allow_patterns=[glob.escape(file.path) for file in plan.choice.files],
        tqdm_class=_quiet_bar(),
        library_name="macllm",
    )
    meter.add(sum(file.size for file in small))
    meter.finish()
    stored = tuple(_stored(plan, file, file in small) for file in plan.choice.files)
    remove_stale_partials(plan.blob(plan.choice.files[0]).parent)
    path = plan.folder / plan.choice.gguf if plan.choice.gguf else plan.folder
    return Fetched(path, plan.commit, stored, downloaded=bool(missing))


def _stored(plan: _Plan, file: RemoteFile, fresh: bool) -> StoredFile:
    """The file's record. What the client fetched is compared with git's hash here; large files were on their way."""
    path = plan.folder / file.path
    size = path.stat().st_size
    if file.sha256 is not None and size == file.size:
        return StoredFile(file.path, size, file.sha256)
    if size != file.size or (fresh and _git_hash(path) != file.blob_id):
        content = path.resolve()
        path.unlink()
        content.unlink(missing_ok=True)
        raise DownloadError(
            f"{file.path} of {plan.source.repo} is damaged in the cache ({size} bytes where {file.size} were announced,"
            " or other content) and was deleted; run the same command again"
        )
    return StoredFile(file.path, size, sha256_of(path, file.path, ignore))


def _git_hash(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _check_sums(plan: _Plan, sums: Mapping[str, str]) -> None:
    for file in plan.choice.files:
        expected = sums.get(file.path)
        if expected is not None and file.sha256 is not None and file.sha256 != expected:
            raise DownloadError(
                f"{file.path} of {plan.source} has the SHA-256 {file.sha256} where the catalogue expects {expected};"
                f" it was replaced: pull the repository itself as {plan.source.repo} if you trust it"
            )


def _from_cache(api: "HfApi", source: HubSource, error: Exception) -> Fetched:
    """The copy that an earlier download left, by macllm or another tool; raises DownloadError unless complete."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, RevisionResolutionError

    try:
        commit = api.resolve_revision(source.repo, revision=source.revision, local_files_only=True).resolved
    except RevisionResolutionError:
        raise unreachable(source, error) from error
    folder = cache.snapshot_folder(source.repo, commit)
    here = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in (folder.rglob("*") if folder.is_dir() else ())
        if path.is_file()
    }
    try:
        tree = get_cached_repo_tree(source.repo, revision=commit)
        files = [RemoteFile(file.path, file.size, file.blob_id) for file in tree]
    except CachedRepoTreeNotFoundError:
        files = [RemoteFile(path, size, "") for path, size in here.items()]
    if not here or not files:
        raise unreachable(source, error) from error
    choice = choose(source, files)
    wanted = {file.path: file.size for file in choice.files}
    if any(here.get(path) != size for path, size in wanted.items()) or not _shards(folder) <= set(here):
        raise unreachable(source, error) from error
    stored = tuple(StoredFile(path, size) for path, size in wanted.items())
    return Fetched(folder / choice.gguf if choice.gguf else folder, commit, stored, downloaded=False)


def _shards(folder: Path) -> set[str]:
    """The weight files that the index names; an older client left no other list of what belongs to the model."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    return set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())


def _quiet_bar() -> "type[tqdm[Any]]":
    from tqdm.std import tqdm

    class Quiet(tqdm):  # type: ignore[misc]
        """A bar that shows nothing: a library does not print."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    return Quiet


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's log lines on stderr; what they say is in the events and errors."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
