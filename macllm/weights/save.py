"""Writes a model folder tensor by tensor: shards whose headers are known in advance, resumable, whole or not there.

The folder grows beside its place as ``NAME.partial`` and is renamed when complete. Each tensor's bytes go
straight to their offset, so that no more than one tensor is in memory. A state file counts the tensors that are
safely on disk; the same conversion goes on behind them, another one is refused.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mlx.core as mx

from macllm.errors import InputError

SHARD_BYTES = 5_000_000_000  # of tensors in a file, as mlx-lm and the hub have it
SYNC_BYTES = 128_000_000  # written between two states: what an interruption can cost
_CHUNK = 1 << 26  # bytes a system call: macOS takes less than 2 GB at once

_TYPE_NAMES = {  # the format's names
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.uint8: "U8",
}
_STATE, _LOCK = "conversion.json", "lock"


@dataclass(frozen=True)
class Entry:
    """One array of a file: its stored name, type and shape."""

    name: str
    dtype: mx.Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.size


@dataclass(frozen=True)
class Unit:
    """The arrays that are written in one step: a plain tensor, or a packed matrix with its scales."""

    entries: tuple[Entry, ...]

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries)


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its name and its arrays in the order of the file."""

    name: str
    entries: tuple[Entry, ...]

    @cached_property
    def header(self) -> bytes:
        """Length, JSON, and spaces up to a multiple of 8 bytes, as the format asks."""
        table: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
        start = 0
        for entry in self.entries:
            end = start + entry.nbytes
            table[entry.name] = {
                "dtype": _TYPE_NAMES[entry.dtype],
                "shape": list(entry.shape),
                "data_offsets": [start, end],
            }
            start = end
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @cached_property
    def offsets(self) -> Mapping[str, int]:
        """Where each array begins, from the start of the file."""
        found, start = {}, len(self.header)
        for entry in self.entries:
            found[entry.name] = start
            start += entry.nbytes
        return found

    @property
    def nbytes(self) -> int:
        return len(self.header) + sum(entry.nbytes for entry in self.entries)


def make_shards(units: Sequence[Unit], limit: int = SHARD_BYTES) -> list[Shard]:
    """The units in order, as many a file as ``limit`` allows; names as mlx-lm's.

    In a file the wide types come first, so that every array is aligned whatever its neighbours' sizes.
    """
    groups: list[list[Entry]] = []
    size = 0
    for unit in units:
        if not groups or size + unit.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].extend(unit.entries)
        size += unit.nbytes
    count = len(groups)
    names = [f"model-{index:05d}-of-{count:05d}.safetensors" for index in range(1, count + 1)]
    return [
        Shard(name if count > 1 else "model.safetensors", tuple(sorted(group, key=lambda e: -e.dtype.size)))
        for name, group in zip(names, groups, strict=True)
    ]


def index_of(shards: Sequence[Shard], parameters: int) -> dict[str, Any]:
    """The content of ``model.safetensors.index.json``."""
    places = {entry.name: shard.name for shard in shards for entry in shard.entries}
    total = sum(entry.nbytes for shard in shards for entry in shard.entries)
    return {
        "metadata": {"total_size": total, "total_parameters": parameters},
        "weight_map": dict(sorted(places.items())),
    }


class PartialFolder:
    """A model folder being written beside its place. Use as a context manager; :meth:`publish` puts it there.

    ``identity`` is what makes two runs the same conversion: plain JSON values.
    """

    def __init__(
        self,
        destination: Path,
        identity: Mapping[str, Any],
        units: Sequence[Unit] = (),
        shards: Sequence[Shard] = (),
        sync_bytes: int = SYNC_BYTES,
    ) -> None:
        self.destination = destination
        self.path = destination.with_name(f"{destination.name}.partial")
        self._units = units
        self._places = {entry.name: shard for shard in shards for entry in shard.entries}
        headers = hashlib.sha256(b"".join(shard.header for shard in shards)).hexdigest()
        self._identity = json.loads(json.dumps({**identity, "headers": headers}))
        self._open: tuple[Shard, int] | None = None  # the shard being written and its descriptor
        self._sync_bytes = sync_bytes
        self._unsynced = 0
        self._lock = -1
        self.done = 0  # units finished

    @property
    def done_bytes(self) -> int:
        """Bytes of the finished units."""
        return sum(unit.nbytes for unit in self._units[: self.done])

    def left_bytes(self) -> int:
        """Bytes still to be written. Raises InputError where another conversion is in the way."""
        return sum(unit.nbytes for unit in self._units[self._left_by_earlier_run() :])

    def __enter__(self) -> Self:
        """Takes the folder. Raises InputError where another conversion is in the way."""
        self._left_by_earlier_run()  # before anything is put into a folder that is not ours
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise InputError(
                f"{self.path}: another macllm is writing it now; wait until it is done"
            ) from None
        self.done = self._left_by_earlier_run()
        self._write_state()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves what is finished for the next run."""
        try:
            self._close_shard()
        finally:
            os.close(self._lock)

    def write_rows(self, first_row: int, rows: int, arrays: Mapping[str, mx.array]) -> None:
        """Writes some consecutive ones of ``rows`` of the next unit's arrays, by stored name.

        An array may have fewer rows of its own, each beside several; then ``first_row`` is the first beside one.
        """
        for entry in self._units[self.done].entries:
            array = arrays[entry.name]
            assert array.dtype == entry.dtype, entry.name
            own = entry.shape[0] if entry.shape else 1  # a single number is one row
            start = self._places[entry.name].offsets[entry.name] + own * first_row // rows * (
                entry.nbytes // own
            )
            data = memoryview(mx.contiguous(array).reshape(-1).view(mx.uint8))  # type: ignore[arg-type]
            _write_at(self._descriptor(self._places[entry.name]), data, start)
            self._unsynced += len(data)

    def finish_unit(self) -> None:
        """Counts the next unit as written."""
        self.done += 1
        if self._unsynced >= self._sync_bytes:
            self._sync()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file as mlx-lm does: indented by four."""
        (self.path / name).write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8")

    def publish(self) -> None:
        """Puts the complete folder in its place."""
        assert self.done == len(self._units)
        self._close_shard()
        if self.destination.exists():
            raise InputError(f"{self.destination} appeared meanwhile; move it away and run the command again")
        (self.path / _STATE).unlink()
        (self.path / _LOCK).unlink()
        self.path.rename(self.destination)

    def clear(self) -> None:
        """Removes what an earlier run left, but the state."""
        for path in self.path.iterdir():
            if path.name not in (_STATE, _LOCK):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _descriptor(self, shard: Shard) -> int:
        if self._open is not None and self._open[0] is not shard:
            self._close_shard()
        if self._open is None:
            descriptor = os.open(self.path / shard.name, os.O_RDWR | os.O_CREAT, 0o644)
            self._open = shard, descriptor
            os.truncate(descriptor, shard.nbytes)
            _write_at(descriptor, memoryview(shard.header), 0)
        return self._open[1]

    def _close_shard(self) -> None:
        if self._open is not None:
            self._sync()
            os.close(self._open[1])
            self._open = None

    def _sync(self) -> None:
        if self._open is not None:
            os.fsync(self._open[1])
        self._unsynced = 0
        self._write_state()

    def _write_state(self) -> None:
        beside = self.path / f"{_STATE}.new"
        beside.write_text(json.dumps({"conversion": self._identity, "done": self.done}, indent=1))
        beside.replace(self.path / _STATE)

    def _left_by_earlier_run(self) -> int:
        """Units that an earlier run of this conversion finished."""
        file = self.path / _STATE
        if not file.is_file():
            self._refuse_foreign()
            return 0
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            left, done = state["conversion"], int(state["done"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{file}: this state cannot be read; delete the folder to start anew") from None
        if left != self._identity:
            raise InputError(
                f"{self.path} holds an unfinished conversion with other options or of another source; run that "
                "command again to finish it, or delete the folder"
            )
        whole = all(self._is_there(entry) for unit in self._units[:done] for entry in unit.entries[:1])
        return done if whole else 0

    def _refuse_foreign(self) -> None:
        """A folder without state is ours only where a run stopped before its first."""
        if not self.path.exists():
            return
        ours = (_STATE, _LOCK, f"{_STATE}.new")
        if not self.path.is_dir() or any(path.name not in ours for path in self.path.iterdir()):
            raise InputError(
                f"{self.path} is in the way and not macllm's; move it away, or choose another destination"
            )

    def _is_there(self, entry: Entry) -> bool:
        shard = self._places[entry.name]
        file = self.path / shard.name
        return file.is_file() and file.stat().st_size == shard.nbytes


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data[:_CHUNK], offset)
        data, offset = data[written:], offset + written
