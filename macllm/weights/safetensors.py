"""Safetensors folders as transformers and mlx-lm write them: one file or shards, quantized by MLX or not.

The header of each file is checked against its length before anything is read, so a truncated download is an
error with a name and not a crash. Arrays are MLX's lazy ones: data is read when a tensor is evaluated, once.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import Quantization, QuantizationPlan
from macllm.spec.names import Form

_DTYPE_BYTES = {
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "U16": 2,
    "I32": 4,
    "I64": 8,
}
_FLOATS = ("F32", "F16", "BF16")
_BLOCKS, _BLOCK_SCALES = (
    "_blocks",
    "_scales",
)  # MXFP4: bytes (..., O, I / 32, 16), and exponents (..., O, I / 32)
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
_REMEDY = "download it again"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file's header."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Headers:
    """What the headers of a folder's weight files say."""

    entries: Mapping[str, Entry]  # by stored name
    form: Form  # whose layout the folder has: MLX's tools say so in their files' metadata


class SafetensorsCheckpoint:
    """The weights of a model folder."""

    rounds_inputs = False
    keeps_blocks = False

    def __init__(self, folder: Path, config: Mapping[str, Any], headers: Headers | None = None) -> None:
        """Reads the headers where it is not given them.

        Raises CheckpointError naming the file that is missing, truncated or damaged.
        """
        self.folder = folder
        self.plan = QuantizationPlan.from_config(config, str(folder / "config.json"))
        self._entries = (headers or read_headers(folder)).entries
        self._loaded: dict[Path, dict[str, mx.array]] = {}

    @property
    def label(self) -> str:
        return str(self.folder)

    def names(self) -> Iterable[str]:
        """Stored names; the scales and biases of a quantized matrix belong to its ``.weight``."""
        return [name for name in self._entries if not self._is_companion(name)]

    def shape(self, name: str) -> tuple[int, ...]:
        entry = self._entry(name)
        quantization = self.quantization(name)
        if quantization is None:
            return entry.shape
        if self._in_blocks(name):
            *rows, groups, _ = entry.shape
            return (*rows, groups * quantization.group_size)
        *rows, words = entry.shape
        return (*rows, words * 32 // quantization.bits)

    def nbytes(self, name: str) -> int:
        return self._entry(name).nbytes + sum(
            self._entries[companion].nbytes
            for companion in self._companions(name)
            if companion in self._entries
        )

    def quantization(self, name: str) -> Quantization | None:
        """How the matrix ``name`` is packed; None where it is plain."""
        if self._in_blocks(name):
            return self.plan.experts
        module = name.removesuffix(".weight")
        if f"{module}.scales" not in self._entries or name == module:
            if self._entry(name).dtype == "U32" and self.plan.of(module) is not None:
                self._entry(f"{module}.scales")  # refused as missing, by name
            return None
        quantization = self.plan.of(module)
        if quantization is None:
            raise CheckpointError(
                f"{self._entry(name).file.name}: {name} is quantized but config.json says nothing of how; "
                "take the config.json that belongs to these weights"
            )
        return quantization

    def placement(self, name: str) -> str:
        quantization = self.quantization(name)
        return str(quantization) if quantization is not None else self._entry(name).dtype.lower()

    def read(self, name: str) -> Stored:
        quantization = self.quantization(name)
        if quantization is None:
            entry = self._entry(name)
            if entry.dtype not in _FLOATS:
                raise CheckpointError(
                    f"{entry.file.name}: {name} is stored as {entry.dtype}, which cannot be read; "
                    "use the model's MLX, GGUF or 16-bit version"
                )
            return Dense(self._array(name))
        self._check_packing(name, quantization)
        scales, biases = self._companions(name)
        weight = self._array(name)
        return Packed(
            weight.view(mx.uint32).flatten(-2) if self._in_blocks(name) else weight,
            self._array(scales),
            self._array(biases) if quantization.has_biases else None,
            quantization,
        )

    def read_dense(self, name: str, dtype: mx.Dtype) -> mx.array:
        tensor = self.read(name)
        return tensor.dequantize(dtype) if isinstance(tensor, Packed) else tensor.array.astype(dtype)

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise CheckpointError(f"{self.folder}: tensor {name!r} is missing; download the model again")
        return self._entries[name]

    def _array(self, name: str) -> mx.array:
        # taken out: whoever asked owns it, and its bytes go when they drop it
        file = self._entry(name).file
        arrays = self._loaded.get(file)
        if arrays is None or name not in arrays:
            try:
                loaded = mx.load(str(file))
            except (RuntimeError, ValueError) as error:
                raise CheckpointError(f"{file}: MLX cannot read it ({error}); {_REMEDY}") from None
            assert isinstance(loaded, dict)  # what a safetensors file gives
            arrays = self._loaded[file] = loaded
        return arrays.pop(name)

    def _companions(self, name: str) -> tuple[str, str]:
        if self._in_blocks(name):
            return f"{name.removesuffix(_BLOCKS)}{_BLOCK_SCALES}", ""  # there are no biases
        module = name.removesuffix(".weight")
        return f"{module}.scales", f"{module}.biases"

    def _in_blocks(self, name: str) -> bool:
        return self.plan.experts is not None and name.endswith(_BLOCKS)

    def _is_companion(self, name: str) -> bool:
        if name.endswith(_BLOCK_SCALES):
            return (
                self._in_blocks(block := f"{name.removesuffix(_BLOCK_SCALES)}{_BLOCKS}")
                and block in self._entries
            )
        module, _, kind = name.rpartition(".")
        return kind in ("scales", "biases") and f"{module}.weight" in self._entries

    def _check_packing(self, name: str, quantization: Quantization) -> None:
        """Refuses a config whose bits or groups do not go with the stored shapes."""
        *rows, width = self.shape(name)
        scales, biases = self._companions(name)
        expected = {scales: (*rows, width // quantization.group_size)}
        if quantization.has_biases:
            expected[biases] = quantization.biases_shape((*rows, width))
        for companion, shape in expected.items():
            found = self._entry(companion).shape
            if found != shape:
                raise CheckpointError(
                    f"{self._entry(name).file.name}: {companion} has shape {found}, but {quantization} in config.json "
                    f"asks for {shape}; take the config.json that belongs to these weights"
                )


def read_headers(folder: Path) -> Headers:
    """Those of all the folder's weight files; raises CheckpointError for one that is missing or not whole."""
    entries: dict[str, Entry] = {}
    forms: list[Form] = []
    for file in _files(folder):
        found, form = _read_header(file)
        entries |= found
        forms.append(form)
    return Headers(entries, forms[0])


def _files(folder: Path) -> list[Path]:
    """The weight files: those of the index where there is one, else every ``.safetensors``."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(
                f"{folder}: there is no .safetensors file; name a folder that holds a model's weights"
            )
        # the authors' own layout (consolidated.safetensors) or an adapter may lie beside the model
        return [file for file in files if file.name.startswith("model")] or files
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index}: this is not an index of weight files; {_REMEDY}") from None
    for name in names:
        if not (folder / name).exists():
            raise CheckpointError(
                f"{index.name}: {name} is missing in {folder}; pull the model again to fetch it"
            )
    return [folder / name for name in names]


def _read_header(file: Path) -> tuple[dict[str, Entry], Form]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise CheckpointError(f"{file}: this is not a whole safetensors file ({size} bytes); {_REMEDY}")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None)
        entries = {name: _entry(file, value) for name, value in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{file}: its header cannot be read; {_REMEDY}") from None
    for name, (entry, end) in entries.items():
        width = _DTYPE_BYTES.get(entry.dtype)
        if width is not None and entry.nbytes != math.prod(entry.shape) * width:
            raise CheckpointError(f"{file}: {name} has a length that does not go with its shape; {_REMEDY}")
        if 8 + length + end > size:
            raise CheckpointError(
                f"{file}: it ends inside tensor {name!r} ({size} of {8 + length + end} bytes are there); {_REMEDY}"
            )
    form: Form = "mlx" if isinstance(metadata, dict) and metadata.get("format") == "mlx" else "hub"
    return {name: entry for name, (entry, _) in entries.items()}, form


def _entry(file: Path, value: Mapping[str, Any]) -> tuple[Entry, int]:
    """A header's entry and where its data ends. Raises ValueError, TypeError or KeyError where it is none."""
    begin, end = value["data_offsets"]
    shape = tuple(value["shape"])
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or begin > end:
        raise ValueError
    return Entry(file, str(value["dtype"]), shape, end - begin), end
