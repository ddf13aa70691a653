"""A model on disk, whatever its format: config, names, weights, and where its tokenizer comes from."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm import fit
from macllm.errors import ConfigError, SourceError, TokenizerError
from macllm.families import is_native, spec_from_config
from macllm.quantization import TERNARY, Mode, Quantization, QuantizationPlan
from macllm.spec import ModelSpec
from macllm.weights.names import Naming, hugging_face

if TYPE_CHECKING:
    import mlx.core as mx

    from macllm.tokenizer.base import Tokenizer
    from macllm.weights.checkpoint import Checkpoint
    from macllm.weights.gguf_file import GGUFFile
    from macllm.weights.safetensors import Headers, SafetensorsCheckpoint


@dataclass(frozen=True)
class ModelFiles:
    """The parts of one model. Nothing but the config is read until asked for."""

    path: Path
    config: Mapping[str, Any]  # as Hugging Face writes it; made from the metadata for a GGUF
    gguf: "GGUFFile | None" = None

    @property
    def label(self) -> str:
        """Where the config comes from, for messages."""
        return str(self.path if self.gguf is not None else self.path / "config.json")

    @property
    def native(self) -> bool:
        return is_native(self.config)

    @cached_property
    def spec(self) -> ModelSpec:
        """Raises ConfigError where the architecture or a value is not supported."""
        return spec_from_config(self.config, self.label)

    @cached_property
    def plan(self) -> QuantizationPlan:
        """How a folder's matrices are quantized, by stored module name."""
        return (
            QuantizationPlan()
            if self.gguf is not None
            else QuantizationPlan.from_config(self.config, self.label)
        )

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        """``generation_config.json``; empty where there is none."""
        file = self.path / "generation_config.json"
        return _read_json(file) if self.gguf is None and file.exists() else {}

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The config with the keys of its language model, which a multimodal one keeps in a part of their own."""
        return fit.text_config(self.config)

    @property
    def stated_context(self) -> int | None:
        """Tokens of context by the config of whatever architecture; None where it does not say."""
        return fit.stated_context(self.config)

    @property
    def half_type(self) -> str | None:
        """The 16-bit type that the weights come in, scales included; None where it is neither."""
        if self.gguf is not None:
            types = {tensor.type_name for tensor in self.gguf.tensors.values() if len(tensor.shape) > 1}
            if types <= {"F32"}:
                return None
            return "bfloat16" if types <= {"BF16", "F32"} else "float16"  # blocks carry float16 scales
        values = self.text_config
        stated = values.get("dtype") or values.get("torch_dtype")
        return stated if stated in ("float16", "bfloat16") else None

    @cached_property
    def naming(self) -> Naming:
        """Where each tensor is stored. Raises CheckpointError for a folder whose weights are not whole."""
        if self.gguf is not None:
            from macllm.weights.gguf.names import gguf_naming

            return gguf_naming(self.spec, self.gguf.metadata["general.architecture"], self.gguf.tensors)
        if not any(self.path.glob("*.safetensors")):
            return hugging_face(self.spec)
        return hugging_face(self.spec, self.headers.form, self.headers.entries)

    @cached_property
    def headers(self) -> "Headers":
        """What the headers of a folder's weights say. Raises CheckpointError where they are not whole."""
        from macllm.weights.safetensors import read_headers

        return read_headers(self.path)

    def formats(self) -> dict[str, Quantization | None]:
        """The packing of each quantizable tensor of a folder by canonical name, known from the config alone.

        As MLX's tools do it, a matrix whose input is no multiple of its group stays plain.
        """
        naming = hugging_face(self.spec)
        ternary = TERNARY if self.plan.ternary is not None else None
        planned = {
            tensor: self.plan.of(naming.module(tensor.name))
            or (ternary if tensor.kind == "matrix" and tensor.name != "head.weight" else None)
            for tensor in self.spec.tensors()
            if tensor.quantizable
        }
        return {
            tensor.name: packing if packing and tensor.shape[-1] % packing.group_size == 0 else None
            for tensor, packing in planned.items()
        }

    def stored_formats(self) -> dict[str, Quantization | None]:
        """The packing in memory of each quantizable tensor by canonical name: by the files, else as :meth:`formats`.

        A GGUF's blocks are taken as kept. Raises CheckpointError for files that cannot be read.
        """
        read = self._packing_of_stored()
        if read is None:
            return self.formats()
        stored = {
            tensor.name: self.naming.stored(tensor.name)
            for tensor in self.spec.tensors()
            if tensor.quantizable
        }
        return {canonical: read(names[0]) if names else None for canonical, names in stored.items()}

    def _packing_of_stored(self) -> Callable[[str], Quantization | None] | None:
        """Tells it of a tensor by its stored name; None where there are no weights."""
        if self.gguf is not None:
            from macllm.weights import gguf_types

            types = {
                name: tensor.type_name if len(tensor.shape) > 1 else ""
                for name, tensor in self.gguf.tensors.items()
            }
            return lambda name: gguf_types.blocks(types[name]) or gguf_types.packing(types[name])
        return self.folder_checkpoint().quantization if any(self.path.glob("*.safetensors")) else None

    def checkpoint(self, dtype: "mx.Dtype", kept: Collection[Mode] = ()) -> "Checkpoint":
        """The weights. Raises CheckpointError.

        Of a GGUF, ``dtype`` is what scales and plain tensors come in, and matrices of the modes ``kept`` stay as
        they lie in the file.
        """
        if self.gguf is not None:
            from macllm.weights.gguf_checkpoint import GGUFCheckpoint

            return GGUFCheckpoint(self.gguf, dtype, kept)
        return self.folder_checkpoint()

    def folder_checkpoint(self) -> "SafetensorsCheckpoint":
        """The weights of a folder, as they are."""
        from macllm.weights.safetensors import SafetensorsCheckpoint
        from macllm.weights.ternary import TernaryCheckpoint

        if self.plan.ternary is not None and self.native:
            return TernaryCheckpoint(
                self.path, self.config, self.plan.ternary, self.spec, self.naming, self.headers
            )
        return SafetensorsCheckpoint(self.path, self.config, self.headers)

    def tokenizer(self) -> "Tokenizer":
        """Raises TokenizerError where it is missing or unreadable."""
        if self.gguf is not None:
            from macllm.tokenizer.gguf import from_gguf_metadata

            try:
                return from_gguf_metadata(self.gguf.metadata)
            except TokenizerError as error:
                raise TokenizerError(f"{self.path}: {error}") from None
        from macllm.tokenizer.load import load_tokenizer

        return load_tokenizer(self.path)


def open_model(path: Path) -> ModelFiles:
    """Opens a model folder, a folder with one GGUF, or a GGUF file.

    Raises SourceError, ConfigError or CheckpointError: one sentence with the path and what to do.
    """
    if path.is_file():
        if path.suffix != ".gguf":
            raise SourceError(
                f"{path}: this is not a model (expected a folder with config.json, or a .gguf file)"
            )
        return _open_gguf(path)
    if not path.is_dir():
        raise SourceError(f"{path}: there is no such file or folder; `macllm list` shows what is installed")
    config = path / "config.json"
    files = sorted(
        file for file in path.glob("*.gguf") if "-of-" not in file.name or "-00001-of-" in file.name
    )
    if config.exists() and (not files or any(path.glob("*.safetensors"))):
        return ModelFiles(path, _read_json(config))
    if len(files) == 1:
        return _open_gguf(files[0])
    if files:
        raise SourceError(
            f"{path}: it holds {len(files)} GGUF files; name one of them, for example {files[0]}"
        )
    raise ConfigError(f"{path}: there is no config.json and no .gguf file; name a folder that holds a model")


def _open_gguf(path: Path) -> ModelFiles:
    from macllm.weights.gguf.config import hf_config
    from macllm.weights.gguf_file import GGUFFile

    file = GGUFFile.open(path)
    return ModelFiles(path, hf_config(file.metadata, file.tensors, str(path)), file)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: this is not valid JSON ({error}); download it again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: this is not a JSON object; download it again")
    return values
