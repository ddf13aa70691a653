"""Searches the Hugging Face hub for models that macllm can load, and for the quantizations there are of one."""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from macllm.errors import DownloadError
from macllm.hub.choice import Choice, RemoteFile, choose, gguf_choices
from macllm.hub.http import CONNECT_S
from macllm.hub.hub_errors import explained, not_a_hub
from macllm.hub.source import DEFAULT_REVISION, HubSource
from macllm.hub.store import gguf_quantization

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.hf_api import ExpandModelProperty_T

Format: TypeAlias = Literal["mlx", "gguf", "safetensors"]

LIMIT = 30  # of each format: a screen or two
SIBLINGS = 100  # of one owner that share a name
_PROPERTIES: "list[ExpandModelProperty_T]" = [
    "downloads",
    "lastModified",
    "gated",
    "tags",
    "pipeline_tag",
    "safetensors",
    "gguf",
]
_TAGS: Mapping[Format, tuple[str, ...]] = {
    "mlx": ("mlx", "text-generation"),
    "gguf": ("gguf",),  # many of these repositories state no task
    "safetensors": ("safetensors", "text-generation"),
}
_VALUE_BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
_QUANTIZED = re.compile(
    r"(?i)[-_.](?P<label>(?:\d(?:\.\d+)?[-_]?bits?|mxfp\d|nvfp4|bf16|fp16|fp32|q\d)(?:[-_](?:dwq|awq|gs\d+|g\d+))*)$"
)


@dataclass(frozen=True)
class Hit:
    """One repository. ``size_bytes`` is that of its safetensors weights, None where the hub does not know it or
    where a choice is to be made; ``parameters`` counts stored values, of packed weights unknown.
    """

    repo: str
    format: Format
    downloads: int
    updated: str  # ISO date
    licence: str
    gated: bool
    size_bytes: int | None
    parameters: int | None
    context: int | None
    quantization: str


@dataclass(frozen=True)
class Variant:
    """One quantization of a model: what to call it, what to pull, and the bytes of its download."""

    label: str
    source: HubSource
    size_bytes: int | None


def search(words: str, *, limit: int = LIMIT) -> tuple[Hit, ...]:
    """The repositories whose names hold ``words``, most downloaded first; an empty text gives the most downloaded.

    Raises DownloadError or SourceError in one sentence.
    """
    about = HubSource(f"the search for '{words.strip()}'")
    with _asking(about):
        from huggingface_hub import HfApi

        api = HfApi(library_name="macllm")

        def ask(kind: Format) -> list[Hit]:
            found = api.list_models(
                search=words.strip() or None,
                filter=_TAGS[kind],
                sort="downloads",
                limit=limit,
                expand=_PROPERTIES,
            )
            return [_hit(info) for info in found]

        _knock()
        try:
            with ThreadPoolExecutor(len(_TAGS)) as pool:
                lists = list(pool.map(ask, _TAGS))
        except (KeyError, TypeError, AttributeError) as error:
            raise not_a_hub(about) from error  # the client takes the answer's shape for granted
    by_repo = {hit.repo: hit for hits in lists for hit in hits}
    return tuple(sorted(by_repo.values(), key=lambda hit: (-hit.downloads, hit.repo)))


def variants(source: HubSource) -> tuple[Variant, ...]:
    """The quantizations to choose from, the smallest first: a repository's GGUF files, or the repositories of the
    same owner whose names differ from this one's only in the quantization.

    Raises DownloadError or SourceError in one sentence.
    """
    with _asking(source):
        from huggingface_hub import HfApi

        api = HfApi(library_name="macllm")
        # first, because it fails at once without a connection where a listing tries for half a minute
        api.model_info(source.repo, revision=source.revision, timeout=CONNECT_S)
        try:
            files = _listing(api, source)
            ggufs = gguf_choices(HubSource(source.repo, source.revision), files)
            if ggufs and not any(file.path.endswith(".safetensors") for file in files):
                return tuple(_gguf_variant(source, choice) for choice in ggufs)
            own = sum(file.size for file in choose(HubSource(source.repo, source.revision), files).files)
            return _siblings(api, source, own)
        except (KeyError, TypeError, AttributeError) as error:
            raise not_a_hub(source) from error


def _hit(info: "ModelInfo") -> Hit:
    tags = list(info.tags or ())
    gguf: Mapping[str, Any] = info.gguf or {}
    packed = info.safetensors is not None and "U32" in info.safetensors.parameters
    total = info.safetensors.total if info.safetensors is not None and not packed else None
    kind: Format = "mlx" if "mlx" in tags else "gguf" if "gguf" in tags else "safetensors"
    context = gguf.get("context_length")
    return Hit(
        repo=info.id,
        format=kind,
        downloads=info.downloads or 0,
        updated=info.last_modified.date().isoformat() if info.last_modified else "",
        licence=_tagged(tags, "license:"),
        gated=bool(info.gated),
        size_bytes=None if kind == "gguf" else _weight_bytes(info),
        parameters=gguf.get("total") if kind == "gguf" else total,
        context=context if isinstance(context, int) else None,
        quantization=_quantization(info.id) if kind != "gguf" else "",
    )


def _tagged(tags: Iterable[str], prefix: str) -> str:
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), "")


def _weight_bytes(info: "ModelInfo") -> int | None:
    """The hub counts stored values by type: of packed weights the 32-bit words."""
    if info.safetensors is None:
        return None
    bits = 0
    for kind, count in info.safetensors.parameters.items():
        digits = re.search(r"\d+$", kind)
        each = _VALUE_BITS.get(kind) or (int(digits[0]) if digits else 0)
        if each == 0:
            return None  # a type of tomorrow
        bits += each * count
    return bits // 8


def _quantization(repo: str) -> str:
    found = _QUANTIZED.search(repo)
    return found["label"] if found else ""


def _stem(repo: str) -> str:
    return _QUANTIZED.sub("", repo)


def _listing(api: "HfApi", source: HubSource) -> list[RemoteFile]:
    from huggingface_hub.hf_api import RepoFile

    revision = source.revision or DEFAULT_REVISION
    return [
        RemoteFile(file.path, file.size, file.blob_id, file.lfs.sha256 if file.lfs else None)
        for file in api.list_repo_tree(source.repo, recursive=True, revision=revision)
        if isinstance(file, RepoFile)
    ]


def _gguf_variant(source: HubSource, choice: Choice) -> Variant:
    first = PurePosixPath(choice.gguf or "")
    label = gguf_quantization(first.name) or first.stem
    # by its path: two files may share a quantization
    wanted = HubSource(source.repo, source.revision, str(first))
    return Variant(label, wanted, sum(file.size for file in choice.files))


def _siblings(api: "HfApi", source: HubSource, own: int) -> tuple[Variant, ...]:
    owner, _, name = source.repo.partition("/")
    found = api.list_models(author=owner, search=_stem(name), limit=SIBLINGS, expand=_PROPERTIES)
    others = (
        info
        for info in found
        if _stem(info.id) == _stem(source.repo) and info.id != source.repo and info.safetensors is not None
    )
    all_ = [Variant(_quantization(source.repo) or "as published", source, own)]
    all_ += [
        Variant(_quantization(info.id) or "as published", HubSource(info.id), _weight_bytes(info))
        for info in others
    ]
    return tuple(sorted(all_, key=lambda variant: (variant.size_bytes or 0, variant.source.repo)))


def _knock() -> None:
    """One small question, because it fails at once without a connection where a search tries for half a minute."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url, headers = f"{constants.ENDPOINT}/api/models", build_hf_headers(library_name="macllm")
    hf_raise_for_status(get_session().get(url, params={"limit": 1}, headers=headers, timeout=CONNECT_S))


@contextmanager
def _asking(source: HubSource) -> Iterator[None]:
    """The hub's errors in one sentence; without a connection one that says what works all the same."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    if constants.is_offline_mode():
        raise DownloadError(
            f"HF_HUB_OFFLINE forbids asking {constants.ENDPOINT}; unset it to search, or use an installed model"
        )
    try:
        with explained(source):
            yield
    except DownloadError as error:
        cause = error.__cause__
        if not isinstance(cause, httpx2.TransportError | OfflineModeIsEnabled):
            raise
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise DownloadError(
            f"{constants.ENDPOINT} cannot be reached ({reason}); check the connection, or use an installed model"
        ) from error
