"""The models macllm knows by name: one TOML file each, read strictly into frozen entries."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from macllm.errors import ConfigError
from macllm.hub.source import HubSource, LocalSource, PackageSource, parse

STARTER = "starter"


@dataclass(frozen=True)
class SamplingDefaults:
    """What the model's authors recommend; None where they say nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue.

    ``size_bytes`` is what is downloaded and about what the weights take in memory; ``parameters`` counts all
    weights, ``active_parameters`` those a token uses in a mixture of experts; ``context`` is in tokens;
    ``draft`` names a smaller entry with the same tokenizer; ``verified`` says how name and size were checked.
    """

    name: str
    title: str
    source: HubSource | PackageSource
    licence: str
    parameters: int
    size_bytes: int
    context: int
    min_memory_gb: int
    description: str
    verified: str
    active_parameters: int | None = None
    draft: str | None = None
    sampling: SamplingDefaults = SamplingDefaults()
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def folder() -> Path:
    """Where the TOML files lie: packaged in an installed macllm, at the repository's root in a clone."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "catalogue"
    return packaged if packaged.is_dir() else package.parent / "models"


@functools.cache
def entries() -> Mapping[str, Entry]:
    """All entries by name, the smallest first; raises ConfigError naming file and key."""
    return load(folder())


def sampling_of(source: str) -> dict[str, float]:
    """What the catalogue recommends for the model that was installed from ``source``; empty for one it has not."""
    entry = next((entry for entry in entries().values() if str(entry.source) == source), None)
    values = asdict(entry.sampling) if entry is not None else {}
    return {name: value for name, value in values.items() if value is not None}


def load(path: Path) -> Mapping[str, Entry]:
    """The entries of one folder."""
    found: dict[str, Entry] = {}
    for file in sorted(path.glob("*.toml")):
        entry = _read(file)
        if entry.name != file.stem:
            raise ConfigError(f"{file}: name='{entry.name}' differs from the file's name; make them the same")
        found[entry.name] = entry
    for entry in found.values():
        if entry.draft is not None and entry.draft not in found:
            raise ConfigError(
                f"{entry.name}.toml: draft='{entry.draft}' is not in the catalogue; name an entry of it"
            )
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: item[1].size_bytes)))


_REQUIRED: Mapping[str, type] = {
    "name": str,
    "title": str,
    "source": str,
    "licence": str,
    "parameters": int,
    "size_bytes": int,
    "context": int,
    "min_memory_gb": int,
    "description": str,
    "verified": str,
}
_OPTIONAL: Mapping[str, type] = {
    "revision": str,
    "active_parameters": int,
    "draft": str,
    "sampling": dict,
    "sha256": dict,
}
_SAMPLING: Mapping[str, type] = {"temperature": float, "top_p": float, "top_k": int, "min_p": float}


def _read(file: Path) -> Entry:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML ({error}); correct it") from error
    values = _typed(raw, {**_REQUIRED, **_OPTIONAL}, file, "")
    for key in _REQUIRED:
        if key not in values:
            raise ConfigError(f"{file}: the key '{key}' is missing; add it")
    sampling = SamplingDefaults(**_typed(values.pop("sampling", {}), _SAMPLING, file, "sampling."))
    sums = values.pop("sha256", {})
    for name, digest in sums.items():
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ConfigError(f"{file}: sha256.{name}={digest!r} is not 64 lower-case hexadecimal digits")
    source = _source(values.pop("source"), values.pop("revision", None), file)
    return Entry(source=source, sampling=sampling, sha256=MappingProxyType(dict(sums)), **values)


def _typed(raw: Mapping[str, Any], known: Mapping[str, type], file: Path, prefix: str) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(
                f"{file}: the key '{prefix}{key}' is not known (expected one of {', '.join(known)})"
            )
        wanted = known[key]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (isinstance(value, wanted) or (wanted is float and whole)) or (wanted is int and not whole):
            raise ConfigError(f"{file}: {prefix}{key}={value!r} is not of type {wanted.__name__}")
        if whole and value <= 0 and prefix == "":
            raise ConfigError(f"{file}: {key}={value} must be more than 0")
        checked[key] = float(value) if wanted is float else value
    return checked


def _source(text: str, revision: str | None, file: Path) -> HubSource | PackageSource:
    source = parse(text, ())
    if isinstance(source, PackageSource) and revision is None:
        return source
    if not isinstance(source, HubSource) or isinstance(source, LocalSource):
        raise ConfigError(
            f"{file}: source='{text}' must be a repository, or a pypi: source without 'revision'"
        )
    return HubSource(source.repo, revision, source.file, source.quant)
