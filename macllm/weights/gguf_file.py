"""Opens GGUF files: parses the header, maps the file into memory, hands out one tensor's bytes at a time.

Written for start-up: a header with 98,000 strings is walked in milliseconds and its string arrays are decoded
only when asked for; weights are views of the mapped file until somebody reads them. Nothing in the header is
trusted: every count and size is checked against the file before it is used. No MLX here.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). Dimensions
are stored innermost first; shapes here are row-major, (O, I) for a matrix. Parts of a split file carry
``split.no``, ``split.count`` and ``split.tensors.count``; the first part holds the model's metadata.
"""

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from macllm.errors import CheckpointError
from macllm.weights.gguf_blocks import TYPES, BlockType

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4  # of ggml tensors
_MAX_ENTRIES = 1 << 20  # metadata keys or tensors: 50 times the largest known file
_MAX_STRINGS = 1 << 24  # of one array: 30 times the largest known vocabulary's merges
_MAX_NESTING = 4  # arrays of arrays
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    number: (struct.Struct("<" + code), np.dtype("<" + kind))
    for number, code, kind in [
        (0, "B", "u1"),
        (1, "b", "i1"),
        (2, "H", "u2"),
        (3, "h", "i2"),
        (4, "I", "u4"),
        (5, "i", "i4"),
        (6, "f", "f4"),
        (_BOOL, "?", "?"),
        (10, "Q", "u8"),
        (11, "q", "i8"),
        (12, "d", "f8"),
    ]
}
_U32, _U64 = _SCALARS[4][0], _SCALARS[10][0]
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class MappedFile:
    """A file mapped read-only. The mapping lives as long as somebody holds a view of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        try:
            with path.open("rb") as file:
                if path.stat().st_size == 0:
                    raise CheckpointError(f"{path.name}: the file is empty; download it again")
                self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened ({error.strerror or error})") from None
        self.size = len(self.bytes)

    def release(self, start: int, stop: int) -> None:
        """Takes whole pages between two offsets out of this process; they stay in the system's file cache."""
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self.bytes.madvise(mmap.MADV_DONTNEED, first, last - first)


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor: where its bytes lie and how they are coded. ``offset`` counts from the start of ``file``."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    offset: int
    nbytes: int
    file: MappedFile

    @property
    def type_name(self) -> str:
        return self.type.name

    @property
    def rows(self) -> int:
        """Rows of the tensor seen as a matrix: all dimensions but the last, multiplied."""
        return math.prod(self.shape[:-1])

    def data(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """The bytes of some rows, (stop - start, row bytes), as a view of the mapped file."""
        stop = self.rows if stop is None else stop
        width = self.nbytes // self.rows
        flat = np.frombuffer(self.file.bytes, np.uint8, (stop - start) * width, self.offset + start * width)
        return flat.reshape(stop - start, width)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        """Says that some rows have been read, so that their pages need not count as this process's memory."""
        width = self.nbytes // self.rows
        stop = self.rows if stop is None else stop
        self.file.release(self.offset + start * width, self.offset + stop * width)


@dataclass(frozen=True)
class _Strings:
    """An array of strings that has not been decoded: where it starts, how many."""

    start: int
    count: int


class Metadata(Mapping[str, Any]):
    """The header's keys. Numbers, strings and lists as Python values; arrays of numbers as read-only numpy views.

    An array of strings becomes a list when it is first asked for.
    """

    def __init__(self, values: dict[str, Any], header: "_Header") -> None:
        self._values = values
        self._header = header

    @property
    def where(self) -> str:
        """The file's name, for messages."""
        return self._header.file.name

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if isinstance(value, _Strings):
            value = self._values[key] = self._header.strings(value, f"key {key!r}")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class GGUFFile:
    """A GGUF model, of one file or several parts: ``metadata`` and ``tensors`` by name, in file order."""

    def __init__(self, path: Path, metadata: Metadata, tensors: dict[str, GGUFTensor]) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors

    @classmethod
    def open(cls, path: str | Path) -> "GGUFFile":
        """Opens a file; for any part of a split one, all its parts. Raises CheckpointError, naming the damage."""
        path = Path(path)
        metadata, tensors = _Header(MappedFile(path)).read()
        count = metadata.get("split.count", 1)
        if isinstance(count, int) and count > 1:
            return _open_parts(path, count)
        return cls(path, metadata, tensors)


def _open_parts(path: Path, count: int) -> GGUFFile:
    match = _PART.search(path.name)
    if match is None or int(match[2]) != count:
        raise CheckpointError(
            f"{path.name}: it is one of {count} parts, but its name does not end in "
            f"'-00001-of-{count:05}.gguf'; give all parts the names they were downloaded with"
        )
    stem = path.name[: match.start()]
    first: Metadata | None = None
    tensors: dict[str, GGUFTensor] = {}
    for number in range(1, count + 1):
        part = path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf")
        if not part.exists():
            raise CheckpointError(f"{part.name}: part {number} of {count} is missing; download it")
        metadata, found = _Header(MappedFile(part)).read()
        if (metadata.get("split.no"), metadata.get("split.count")) != (number - 1, count):
            raise CheckpointError(f"{part.name}: it is not part {number} of {count}; download it again")
        for name in found.keys() & tensors.keys():
            raise CheckpointError(
                f"{part.name}: tensor {name!r} is in an earlier part too; download it again"
            )
        tensors.update(found)
        first = first or metadata
    assert first is not None
    expected = first.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise CheckpointError(
            f"{path.name}: the parts hold {len(tensors)} tensors, not {expected} as the first one says; "
            "download them again"
        )
    return GGUFFile(path.with_name(f"{stem}-00001-of-{count:05}.gguf"), first, tensors)


class _Header:
    """Walks one file's header. ``at`` is the offset of what comes next."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.at = 0

    def read(self) -> tuple[Metadata, dict[str, GGUFTensor]]:
        tensor_count, key_count = self._preamble()
        values: dict[str, Any] = {}
        for index in range(key_count):
            key = self._string(f"metadata key {index + 1} of {key_count}")
            if key in values:
                self._damaged(f"metadata key {key!r} appears twice")
            values[key] = self._value(self._number(_U32, f"key {key!r}"), f"key {key!r}")
        infos = [self._tensor_info(index, tensor_count) for index in range(tensor_count)]
        alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            self._damaged(f"general.alignment={alignment!r} is not a power of two")
        return Metadata(values, self), self._place(infos, alignment)

    def _preamble(self) -> tuple[int, int]:
        magic = self.file.bytes[:4]
        if magic != _MAGIC:
            raise CheckpointError(
                f"{self.file.name}: it is not a GGUF file, it starts with {magic!r}; download it again"
            )
        self.at = 4
        version = self._number(_U32, "the version")
        if version and version & 0xFFFF == 0:
            raise CheckpointError(
                f"{self.file.name}: it is a big-endian GGUF file; get the little-endian one or convert it with "
                "llama.cpp's gguf_convert_endian.py"
            )
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{self.file.name}: GGUF version {version} is not supported (expected 2 or 3); get a current "
                "conversion of the model"
            )
        tensors, keys = self._number(_U64, "the tensor count"), self._number(_U64, "the key count")
        for what, count in (("tensors", tensors), ("metadata keys", keys)):
            if count > _MAX_ENTRIES:
                self._damaged(f"its header announces {count} {what}")
        return tensors, keys

    def _damaged(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self.file.name}: {what}; the file is damaged, download it again")

    def _truncated(self, what: str) -> NoReturn:
        raise CheckpointError(
            f"{self.file.name}: the file ends inside its header, at {what} (it has {self.file.size} bytes); "
            "the download is incomplete, download it again"
        )

    def _number(self, kind: struct.Struct, what: str) -> Any:
        try:
            (value,) = kind.unpack_from(self.file.bytes, self.at)
        except (struct.error, OverflowError):
            self._truncated(what)
        self.at += kind.size
        return value

    def _string(self, what: str) -> str:
        length = self._number(_U64, what)
        if length > self.file.size - self.at:
            self._truncated(what)
        data = self.file.bytes[self.at : self.at + length]
        self.at += length
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._damaged(f"{what} is not UTF-8 text")

    def _value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind][0], what)
        if kind == _STRING:
            return self._string(what)
        if kind != _ARRAY or depth > _MAX_NESTING:
            self._damaged(f"{what} has the unknown value type {kind}")
        inner, count = self._number(_U32, what), self._number(_U64, what)
        if inner in _SCALARS:
            return self._numbers(_SCALARS[inner][1], count, what)
        # At least 8 bytes an entry, so that a lying count ends the walk instead of filling memory.
        if count > min(_MAX_STRINGS, (self.file.size - self.at) // 8):
            self._truncated(f"{what}, an array of {count} entries")
        if inner == _STRING:
            return self._skip_strings(count, what)
        return [self._value(inner, what, depth + 1) for _ in range(count)]

    def _numbers(self, dtype: np.dtype[Any], count: int, what: str) -> npt.NDArray[Any]:
        if count * dtype.itemsize > self.file.size - self.at:
            self._truncated(f"{what}, an array of {count} numbers")
        values = np.frombuffer(self.file.bytes, dtype, count, self.at)
        self.at += count * dtype.itemsize
        return values

    def _skip_strings(self, count: int, what: str) -> _Strings:
        start = at = self.at
        data, unpack = self.file.bytes, _U64.unpack_from
        try:
            for _ in range(count):
                at += 8 + unpack(data, at)[0]
        except (struct.error, OverflowError):
            self._truncated(what)
        if at > self.file.size:
            self._truncated(what)
        self.at = at
        return _Strings(start, count)

    def strings(self, array: _Strings, what: str) -> list[str]:
        """The texts of an array that was skipped over."""
        data, unpack, at = self.file.bytes, _U64.unpack_from, array.start
        texts = []
        try:
            for _ in range(array.count):
                end = at + 8 + unpack(data, at)[0]
                texts.append(data[at + 8 : end].decode())
                at = end
        except UnicodeDecodeError:
            self._damaged(f"entry {len(texts)} of {what} is not UTF-8 text")
        return texts

    def _tensor_info(self, index: int, count: int) -> GGUFTensor:
        name = self._string(f"the name of tensor {index + 1} of {count}")
        what = f"tensor {name!r}"
        dimensions = self._number(_U32, what)
        if dimensions > _MAX_DIMENSIONS:
            self._damaged(f"{what} has {dimensions} dimensions")
        shape = tuple(self._number(_U64, what) for _ in range(dimensions))[::-1]
        number, offset = self._number(_U32, what), self._number(_U64, what)
        if number not in TYPES:
            raise CheckpointError(
                f"{self.file.name}: {what} has the unknown type number {number}; the file is damaged or newer "
                "than this macllm"
            )
        kind = TYPES[number]
        elements = math.prod(shape)
        if elements == 0 or (shape[-1] if shape else 1) % kind.elements:
            self._damaged(f"{what} has the impossible shape {shape} for type {kind.name}")
        return GGUFTensor(name, shape, kind, offset, elements // kind.elements * kind.nbytes, self.file)

    def _place(self, infos: list[GGUFTensor], alignment: int) -> dict[str, GGUFTensor]:
        """The tensors with offsets from the start of the file, none outside it and none on top of another."""
        base = -(-self.at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for info in infos:
            offset = base + info.offset
            tensor = GGUFTensor(info.name, info.shape, info.type, offset, info.nbytes, self.file)
            if tensor.name in tensors:
                self._damaged(f"tensor {tensor.name!r} appears twice")
            if tensor.offset + tensor.nbytes > self.file.size:
                raise CheckpointError(
                    f"{self.file.name}: tensor {tensor.name!r} should end at byte {offset + tensor.nbytes} but "
                    f"the file has {self.file.size} bytes; the download is incomplete, download it again"
                )
            tensors[tensor.name] = tensor
        end = base
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
            if tensor.offset < end:
                self._damaged(f"tensor {tensor.name!r} lies on top of another")
            end = tensor.offset + tensor.nbytes
        # Written files end with the last tensor, padded. More means tensors that the header does not list.
        if tensors and self.file.size - end >= alignment:
            self._damaged(
                f"{self.file.size - end} bytes follow the last of the {len(tensors)} tensors its header announces"
            )
        return tensors
