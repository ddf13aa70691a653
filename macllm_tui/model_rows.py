"""What the models screens list: installed, catalogue and search in one form, their facts, and whether they fit.

Everything here may wait for a disk or a server: call it in a thread.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from macllm import fit, paths
from macllm.errors import MacllmError
from macllm.families import is_native, spec_from_config
from macllm.fit import Fit
from macllm.hub import catalogue, config_file, search, store
from macllm.hub.search import Variant
from macllm.hub.source import HubSource, PackageSource, parse
from macllm.spec import ModelSpec

Section: TypeAlias = Literal["installed", "catalogue", "search"]
FORMATS = {"mlx": "safetensors for MLX", "safetensors": "safetensors", "gguf": "GGUF"}


@dataclass(frozen=True)
class Row:
    """One model of a list. ``source`` is what is pulled, ``name`` the installed name or what it will be called.

    ``here`` says that it is on this machine, ``hub`` which repository tells more, ``choices`` that one of its
    quantizations has to be chosen first.
    """

    name: str
    title: str
    source: str
    section: Section
    here: bool = False
    missing: bool = False  # installed, but its files are gone
    owned: bool = False
    folder: str = ""
    size_bytes: int | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    quantization: str = ""
    format: str = ""
    context: int | None = None
    licence: str = ""
    description: str = ""
    draft: str = ""
    used: str = ""
    updated: str = ""
    downloads: int | None = None
    gated: bool = False
    hub: HubSource | None = None
    choices: bool = False


@dataclass(frozen=True)
class Facts:
    """What a config says: the spec of a native model, or what else is known; ``note`` where it could not be had."""

    spec: ModelSpec | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def context(self) -> int | None:
        if self.spec is not None:
            return self.spec.max_context
        return fit.stated_context(self.config)


def installed_rows() -> list[Row]:
    """The models on this machine, the one used last first."""
    known = {str(entry.source): entry for entry in catalogue.entries().values()}
    rows = [_installed(model, known.get(model.source)) for model in store.installed()]
    return sorted(sorted(rows, key=lambda row: row.name.lower()), key=lambda row: row.used, reverse=True)


def catalogue_rows() -> list[Row]:
    """The models that macllm knows by name, the smallest first."""
    here = _by_source()
    return [_catalogued(entry, here.get(str(entry.source))) for entry in catalogue.entries().values()]


def search_rows(words: str) -> list[Row]:
    """What the hub has under these words. Raises DownloadError or SourceError."""
    here = _by_source()
    return [_found(hit, here.get(hit.repo)) for hit in search.search(words)]


def refreshed(rows: list[Row]) -> list[Row]:
    """The same rows with what is on this machine now."""
    here = _by_source()
    return [_placed(row, here.get(row.source)) for row in rows]


def variants_of(row: Row) -> tuple[Variant, ...]:
    """The quantizations to choose from; none for what the hub does not have. Raises DownloadError or SourceError."""
    return search.variants(row.hub) if row.hub is not None else ()


def with_variant(row: Row, variant: Variant) -> Row:
    """The row with this quantization chosen."""
    source = str(variant.source)
    gguf = variant.source.file is not None
    chosen = replace(
        row,
        section="search",
        title=variant.source.repo,
        source=source,
        missing=False,
        size_bytes=variant.size_bytes,
        quantization=variant.label,
        format=FORMATS["gguf"] if gguf else row.format,
        hub=replace(variant.source, file=None) if gguf else variant.source,
        choices=False,
    )
    return _placed(chosen, _by_source().get(source))


def facts_of(row: Row) -> Facts:
    """What the model's config says, from this disk or from the hub."""
    try:
        config = _config(row)
        if config is None:
            return Facts()
        return Facts(spec_from_config(config, row.title) if is_native(config) else None, config)
    except (MacllmError, OSError, ValueError) as error:
        return Facts(note=" ".join(str(error).split()))


def fit_of(row: Row, facts: Facts | None, limit: int | None, value_bytes: int = 2) -> Fit:
    """Whether the row's model fits, by its spec where the facts have one, else by sizes."""
    if row.choices:
        return Fit("unknown", None, None, "Choose a quantization with v to see what fits.")
    if facts is not None and facts.spec is not None and row.size_bytes is not None:
        return fit.fit_of_spec(facts.spec, row.size_bytes, limit, value_bytes=value_bytes)
    kv = fit.plain_kv_bytes(fit.text_config(facts.config)) if facts is not None and facts.config else None
    context = (facts.context if facts is not None else None) or row.context
    return fit.fit_of_sizes(row.size_bytes, limit, kv_bytes=kv, max_context=context)


def recommended(limit: int | None, count: int = 2) -> list[Row]:
    """The best models of the catalogue to talk with that fit comfortably: the most parameters, of different
    families first.

    While the limit is not known, those that every Mac runs.
    """

    def suits(row: Row) -> bool:
        if limit is None:
            return catalogue.entries()[row.source].min_memory_gb <= 8
        return fit_of(row, None, limit).verdict == "comfortable"

    general = (
        row for row in catalogue_rows() if row.source != catalogue.STARTER and "coder" not in row.source
    )
    rows = [row for row in general if suits(row)]
    rows.sort(key=lambda row: row.parameters or 0, reverse=True)
    chosen: list[Row] = []
    for row in rows:
        if _family(row.name) not in {_family(other.name) for other in chosen}:
            chosen.append(row)
    chosen += [row for row in rows if row not in chosen]
    return chosen[:count]


def starter_row() -> Row:
    """The model to try things with."""
    return next(row for row in catalogue_rows() if row.source == catalogue.STARTER)


def free_bytes() -> int:
    """What the disk of the models has left."""
    return paths.free_bytes(paths.models_dir())


def _by_source() -> dict[str, store.Installed]:
    return {model.source: model for model in store.installed() if not model.missing}


def _installed(model: store.Installed, entry: catalogue.Entry | None) -> Row:
    source = model.source if entry is None else entry.name
    row = Row(
        name=model.name,
        title=entry.title if entry is not None else model.name,
        source=source,
        section="installed",
        here=not model.missing,
        missing=model.missing,
        owned=model.owned,
        folder=str(model.path),
        size_bytes=model.size_bytes,
        quantization=model.quantization,
        format=FORMATS["gguf" if model.format == "gguf" else "mlx"],
        used=(store.used_at(model.name) or "").partition("T")[0],
        hub=_hub_source(model.source),
    )
    return row if entry is None else replace(row, **_known(entry))


def _catalogued(entry: catalogue.Entry, model: store.Installed | None) -> Row:
    package = isinstance(entry.source, PackageSource)
    row = Row(
        name=entry.name,
        title=entry.title,
        source=entry.name,
        section="catalogue",
        size_bytes=entry.size_bytes,
        quantization=_stated_quantization(entry),
        format=FORMATS["gguf" if package else "mlx"],
        hub=entry.source if isinstance(entry.source, HubSource) else None,
    )
    return _placed(replace(row, **_known(entry)), model)


def _known(entry: catalogue.Entry) -> dict[str, Any]:
    return {
        "parameters": entry.parameters,
        "active_parameters": entry.active_parameters,
        "context": entry.context,
        "licence": entry.licence,
        "description": entry.description,
        "draft": entry.draft or "",
    }


def _found(hit: search.Hit, model: store.Installed | None) -> Row:
    row = Row(
        name=hit.repo,
        title=hit.repo,
        source=hit.repo,
        section="search",
        size_bytes=hit.size_bytes,
        parameters=hit.parameters,
        quantization=hit.quantization,
        format=FORMATS[hit.format],
        context=hit.context,
        licence=hit.licence,
        updated=hit.updated,
        downloads=hit.downloads,
        gated=hit.gated,
        hub=HubSource(hit.repo),
        choices=hit.format == "gguf",
    )
    return _placed(row, model)


def _placed(row: Row, model: store.Installed | None) -> Row:
    """The row with what this machine has of it."""
    if model is None:
        return replace(row, name=row.source, here=False, owned=False, folder="", used="")
    used = (store.used_at(model.name) or "").partition("T")[0]
    return replace(
        row, name=model.name, here=True, owned=model.owned, folder=str(model.path), used=used, choices=False
    )


def _hub_source(text: str) -> HubSource | None:
    try:
        source = parse(text, ())
    except MacllmError:
        return None  # a path that is not there any more
    return source if isinstance(source, HubSource) else None


def _stated_quantization(entry: catalogue.Entry) -> str:
    text = entry.source.member if isinstance(entry.source, PackageSource) else str(entry.source.repo)
    if found := store.gguf_quantization(text):
        return found
    bits = re.search(r"(?i)[-_](\d)[-_]?bit|[-_](mxfp4|nvfp4)", text)
    return "" if bits is None else f"{bits[1]} bit" if bits[1] else bits[2].lower()


def _config(row: Row) -> Mapping[str, Any] | None:
    """None where there is none to be had: a GGUF carries its facts inside."""
    if row.folder.endswith(".gguf") or row.format == FORMATS["gguf"]:
        return None
    if row.here:
        from pathlib import Path

        config = json.loads((Path(row.folder) / "config.json").read_text(encoding="utf-8"))
        return config if isinstance(config, dict) else None
    return config_file.fetch_config(row.hub) if row.hub is not None else None


def _family(name: str) -> str:
    return re.split(r"[^a-z]", name.lower(), maxsplit=1)[0]
