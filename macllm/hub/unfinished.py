"""What a download that was given up left on this disk, and deleting it."""

from contextlib import suppress
from pathlib import Path

from macllm.hub import cache, catalogue, store
from macllm.hub.source import CatalogueSource, HubSource, PackageSource, Source, parse
from macllm.hub.transfer import try_lock


def unfinished(text: str, name: str) -> list[Path]:
    """The files that an interrupted :func:`macllm.hub.pull.pull` of ``text`` as ``name`` would go on with.

    Of a repository also the contents that arrived whole but that no finished snapshot shows yet.
    """
    known = catalogue.entries()
    source: Source = parse(text, known)
    if isinstance(source, CatalogueSource):
        source = known[source.name].source
    if isinstance(source, PackageSource):
        return sorted(store.folder_of(name).glob("*.partial"))
    return _of_repository(source.repo) if isinstance(source, HubSource) else []


def discard(text: str, name: str) -> int:
    """Deletes them, except what a process is working on; returns the bytes freed."""
    freed = 0
    for path in unfinished(text, name):
        with suppress(OSError), path.open("r+b") as file:
            if try_lock(file):
                freed += path.stat().st_size
                path.unlink()
    return freed


def _of_repository(repo: str) -> list[Path]:
    folder = cache.repo_folder(repo)
    blobs = folder / "blobs"
    found = sorted(blobs.glob("*.partial"))
    if any(blobs.glob("*.incomplete")):
        return found  # another tool is downloading: what lies there whole may be its own
    shown = {path.resolve() for path in folder.glob("snapshots/**/*")}
    whole = (path for path in blobs.glob("*") if path.suffix == "" and path.resolve() not in shown)
    return [*found, *sorted(whole)]
