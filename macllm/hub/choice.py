"""Which files of a repository a model needs: weights and what goes with them, never code or pickles."""

import contextlib
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from macllm.errors import SourceError
from macllm.hub.source import HubSource

# Beside the weights: configuration, tokenizer and template. Programs (.py) are left where they are.
COMPANIONS = frozenset({".json", ".model", ".jinja", ".tiktoken", ".txt"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
TEMPLATE_FOLDER = "additional_chat_templates"

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository; ``sha256`` is known of large files, ``blob_id`` is git's hash of the content."""

    path: str
    size: int
    blob_id: str
    sha256: str | None = None

    @property
    def blob(self) -> str:
        """The content's name in the shared cache."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True)
class Choice:
    """The files to have, and the .gguf among them that is loaded; None when the folder is the model."""

    files: tuple[RemoteFile, ...]
    gguf: str | None = None


def choose(source: HubSource, files: Sequence[RemoteFile]) -> Choice:
    """The files that ``source`` means; raises SourceError naming what the repository has instead."""
    ggufs = [file for file in files if file.path.endswith(".gguf")]
    if source.file is not None:
        return _gguf(source, _named(source, source.file, ggufs), ggufs)
    weights = _safetensors(files)
    if source.quant is not None:
        return _gguf(source, _of_quant(source, source.quant, ggufs), ggufs)
    if weights:
        return Choice((*weights, *_companions(files)))
    firsts = _model_ggufs(ggufs)
    if len(firsts) == 1:
        return _gguf(source, firsts[0], ggufs)
    if firsts:
        raise SourceError(
            f"{source.repo} has {len(firsts)} GGUF files ({_some(firsts)}); name one, as in"
            f" {source.repo}/{_middle(firsts).path}"
        )
    if any(PurePosixPath(file.path).suffix in PICKLES for file in files):
        raise SourceError(
            f"{source.repo} has its weights only as pickles (.bin, .pt), which can run code when read and are never"
            " loaded; look for the same model as safetensors or GGUF"
        )
    raise SourceError(
        f"{source.repo} has neither safetensors nor GGUF weights; it is not a model macllm can load"
    )


def gguf_choices(source: HubSource, files: Sequence[RemoteFile]) -> list[Choice]:
    """Each GGUF model of a repository with its parts, the smallest first; incomplete ones are left out."""
    ggufs = [file for file in files if file.path.endswith(".gguf")]
    found = []
    for first in _model_ggufs(ggufs):
        with contextlib.suppress(SourceError):  # a part is not there yet
            found.append(_gguf(source, first, ggufs))
    return sorted(found, key=lambda choice: sum(file.size for file in choice.files))


def _safetensors(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Weights in the top folder; ``model*`` alone where the authors' own layout lies beside it."""
    top = [file for file in files if "/" not in file.path and file.path.endswith(".safetensors")]
    return [file for file in top if file.path.startswith("model")] or top


def _companions(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    def needed(path: PurePosixPath) -> bool:
        folder = str(path.parent)
        if folder == TEMPLATE_FOLDER:
            return path.suffix == ".jinja"
        return folder == "." and path.suffix in COMPANIONS

    return [file for file in files if needed(PurePosixPath(file.path))]


def _named(source: HubSource, wanted: str, ggufs: Sequence[RemoteFile]) -> RemoteFile:
    for file in ggufs:
        if file.path == wanted:
            return file
    near = difflib.get_close_matches(wanted, [file.path for file in ggufs], n=3, cutoff=0.4)
    guess = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"it has {_some(ggufs)}"
        if ggufs
        else "it has no GGUF"
    )
    raise SourceError(f"{source.repo} has no file '{wanted}' ({guess}); check the name")


def _of_quant(source: HubSource, quant: str, ggufs: Sequence[RemoteFile]) -> RemoteFile:
    pattern = re.compile(rf"(?i)(?:^|[^A-Za-z0-9]){re.escape(quant)}(?:-\d{{5}}-of-\d{{5}})?\.gguf$")
    found = [file for file in _model_ggufs(ggufs) if pattern.search(file.path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SourceError(
            f"{source.repo} has {len(found)} files of '{quant}' ({_some(found)}); name one by its path"
        )
    has = f"it has {_some(_model_ggufs(ggufs))}" if ggufs else "it has no GGUF file"
    raise SourceError(f"{source.repo} has no GGUF of the quantization '{quant}' ({has}); check the name")


def _model_ggufs(ggufs: Sequence[RemoteFile]) -> list[RemoteFile]:
    """One a model: the first part of a split one, and no vision projectors or calibration data."""

    def is_model(path: str) -> bool:
        name = PurePosixPath(path).name.lower()
        part = _PART.search(path)
        return (part is None or int(part[1]) == 1) and not name.startswith("mmproj") and "imatrix" not in name

    return [file for file in ggufs if is_model(file.path)]


def _gguf(source: HubSource, first: RemoteFile, ggufs: Sequence[RemoteFile]) -> Choice:
    part = _PART.search(first.path)
    if part is None:
        return Choice((first,), first.path)
    stem, count = first.path[: part.start()], int(part[2])
    by_path = {file.path: file for file in ggufs}
    paths = [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    absent = [path for path in paths if path not in by_path]
    if absent:
        raise SourceError(
            f"{source.repo} lacks {absent[0]}, a part of {first.path}; choose another file of it"
        )
    return Choice(tuple(by_path[path] for path in paths), paths[0])


def _middle(files: Sequence[RemoteFile]) -> RemoteFile:
    """The one to propose: Q4_K_M if there is one, else the median of size."""
    for file in files:
        if "q4_k_m" in file.path.lower():
            return file
    return sorted(files, key=lambda file: file.size)[len(files) // 2]


def _some(files: Sequence[RemoteFile]) -> str:
    names = [file.path for file in files]
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"
