"""Converts a model to another precision: reads, repacks or quantizes and writes one tensor after another.

What is quantized already keeps its codes; nothing is quantized twice unless that is asked for. The result is a
model folder as mlx-lm writes and loads it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import mlx.core as mx

from macllm.errors import InputError, MacllmError, TokenizerError
from macllm.paths import free_bytes
from macllm.quantization import QuantizationPlan
from macllm.units import size
from macllm.weights import companions
from macllm.weights.model_files import open_model
from macllm.weights.operations import Relation
from macllm.weights.plan import Plan, Target, decide
from macllm.weights.save import (
    SHARD_BYTES,
    SYNC_BYTES,
    Entry,
    PartialFolder,
    Shard,
    Unit,
    index_of,
    make_shards,
)
from macllm.weights.source import Source

_SPARE_BYTES = 50_000_000  # for the files beside the weights


@dataclass(frozen=True)
class Planned:
    """What is going to be written; ``present_bytes`` of it are there from an interrupted run."""

    tensors: int
    total_bytes: int
    present_bytes: int


@dataclass(frozen=True)
class Converted:
    """A tensor is written, or some rows of a large one: bytes of all, those of an earlier run included."""

    name: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Notice:
    """Something the user would want to know about the result, as one sentence."""

    text: str


Event: TypeAlias = Planned | Converted | Notice
Report: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True)
class Conversion:
    """A finished conversion. Names of matrices are those in the written files."""

    path: Path
    parameters: int
    size_bytes: int  # of the weights
    quantization: QuantizationPlan
    dtype: str | None  # of what is not packed; None: as in the source
    kept: tuple[str, ...]  # matrices whose codes were taken over
    quantized: tuple[str, ...]
    plain: tuple[str, ...]
    notices: tuple[str, ...]
    elapsed_s: float
    peak_memory_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return self.size_bytes * 8 / self.parameters


def ignore(event: Event) -> None:
    """The report of a caller who does not want to know."""


def convert(
    source: Path,
    destination: Path,
    target: Target | None = None,
    report: Report = ignore,
    *,
    shard_bytes: int = SHARD_BYTES,
    sync_bytes: int = SYNC_BYTES,
    disk_free: Callable[[Path], int] = free_bytes,
) -> Conversion:
    """Writes the model of ``source`` (a folder or a GGUF file) to the new folder ``destination``.

    Interrupted, the same call goes on where it stopped. Raises InputError where the destination is taken or the
    source cannot be converted so, MacllmError where the disk is too small.
    """
    target = target or Target()
    destination = destination.absolute()
    refuse_existing(destination)
    files = open_model(source)
    if files.plan.ternary is not None:
        raise InputError(
            f"{source}: its weights are ternary (BitNet) and used as they are; leave it as it is"
        )
    if not files.native:
        from macllm.weights.foreign import convert_foreign

        return convert_foreign(files, destination, target, report, disk_free)
    run = _Run(Source(files, target), destination, report)
    return run.write(shard_bytes, sync_bytes, disk_free)


def write_source(
    source: Source,
    destination: Path,
    report: Report = ignore,
    *,
    keep: Collection[str] = (),
    sync_bytes: int = SYNC_BYTES,
    disk_free: Callable[[Path], int] = free_bytes,
) -> Conversion:
    """Writes what ``source`` gives as :func:`convert` does, for weights that are not simply those of a model's files.

    ``keep``: canonical names of what stays packed as it is, whatever the target says.
    """
    return _Run(source, destination, report, keep).write(SHARD_BYTES, sync_bytes, disk_free)


def refuse_existing(destination: Path) -> None:
    """Raises InputError where there is something already."""
    if destination.exists() or destination.is_symlink():
        raise InputError(f"{destination} exists already; delete it, or choose another destination")


def check_space(needed: int, destination: Path, disk_free: Callable[[Path], int]) -> None:
    """Raises MacllmError where the disk cannot hold ``needed`` bytes more."""
    free, needed = disk_free(destination.parent), needed + _SPARE_BYTES
    if needed > free:
        raise MacllmError(
            f"{destination}: {size(needed)} are needed and {size(free)} are free on its disk; free some "
            "space, or choose a destination on another disk"
        )


class _Run:
    """One conversion of a native model."""

    def __init__(self, source: Source, destination: Path, report: Report, keep: Collection[str] = ()) -> None:
        files, target = source.files, source.target
        self.files, self.destination, self.target, self.report = files, destination, target, report
        self.source = source
        self.naming = self.source.target_naming
        self.written = list(self.naming.relations())
        decided = decide(files.spec, target, source.held, source.checkpoint.label, keep)
        self.plan: Plan = decided.with_whole(self.written)
        self.units = [self._unit(relation) for relation in self.written]
        self.units += [self._idle_unit(name) for name in self.source.idle]
        self.notices = list(_notices(self.plan, self._stored))
        if files.spec.part_of is not None:
            self.notices.append(f"of {files.spec.part_of} this is the text part: it sees and hears nothing")
        if (files.config.get("rope_scaling") or {}).get("rope_type") == "table":
            self.notices.append(
                "the file's own rope factors have no form in other tools' configs: only macllm reads it"
            )

    def write(self, shard_bytes: int, sync_bytes: int, disk_free: Callable[[Path], int]) -> Conversion:
        start = time.perf_counter()
        mx.reset_peak_memory()
        shards = make_shards(self.units, shard_bytes)
        folder = PartialFolder(self.destination, self._identity(), self.units, shards, sync_bytes)
        check_space(folder.left_bytes(), self.destination, disk_free)
        total = sum(unit.nbytes for unit in self.units)
        with folder:
            self.report(Planned(len(self.units), total, folder.done_bytes))
            for relation in self.written[folder.done :]:
                self._write(folder, relation, total)
            for name in list(self.source.idle)[folder.done - len(self.written) :]:
                folder.write_rows(0, 1, {name: self.source.read_idle(name)})
                folder.finish_unit()
            self._write_companions(folder, shards)
            folder.publish()
        for notice in self.notices:
            self.report(Notice(notice))
        return self._result(total, time.perf_counter() - start)

    def _write(self, folder: PartialFolder, relation: Relation, total: int) -> None:
        before, unit = folder.done_bytes, self.units[folder.done]
        for first, count, arrays in self._pieces(relation):
            rows = unit.entries[0].shape[0] if unit.entries[0].shape else 1
            named = dict(zip((entry.name for entry in unit.entries), arrays, strict=True))
            folder.write_rows(first, rows, named)
            self.report(
                Converted(unit.entries[0].name, before + unit.nbytes * (first + count) // rows, total)
            )
        folder.finish_unit()
        mx.clear_cache()  # what a large tensor leaves would be kept for the next

    def _pieces(self, relation: Relation) -> Iterator[tuple[int, int, list[mx.array]]]:
        """The arrays of a unit some rows at a time, with the number of the first row and of all."""
        if len(relation.stored) > 1:
            arrays = self.source.several(relation)
            yield 0, arrays[0].shape[0], arrays
            return
        for first, part in self.source.rows(relation, self.plan.formats.get(relation.canonical[0].name)):
            yield first, part.shape[0] if part.shape else 1, part.arrays()

    def _unit(self, relation: Relation) -> Unit:
        """The arrays that a stored tensor is written as."""
        name, shape, first = relation.stored[0], relation.stored_shapes()[0], relation.canonical[0].name
        dtype = self.source.dtype_of(first)
        q = self.plan.formats.get(first)
        if q is None:
            shapes = zip(relation.stored, relation.stored_shapes(), strict=True)
            return Unit(tuple(Entry(stored, dtype, shape) for stored, shape in shapes))
        module, (*rows, width) = name.removesuffix(".weight"), shape
        weight = Entry(name, mx.uint32, (*rows, width * q.bits // 32))
        affine = q.mode == "affine"
        scales = Entry(f"{module}.scales", dtype if affine else mx.uint8, (*rows, width // q.group_size))
        if not q.has_biases:
            return Unit((weight, scales))
        biases = Entry(f"{module}.biases", dtype if affine else mx.float32, q.biases_shape(shape))
        return Unit((weight, scales, biases))

    def _idle_unit(self, name: str) -> Unit:
        shape = self.source.checkpoint.shape(self.source.idle[name])
        return Unit((Entry(name, self.source.idle_type(name), shape),))

    def _identity(self) -> dict[str, object]:
        from macllm import __version__

        return {
            "macllm": __version__,
            "mlx": version("mlx"),
            "source": self.source.identity(),
            "target": asdict(self.target),
        }

    @property
    def _dtype(self) -> str | None:
        dtype = self.source.dtype
        return str(dtype).rpartition(".")[2] if dtype is not None else None

    def _write_companions(self, folder: PartialFolder, shards: list[Shard]) -> None:
        folder.write_json("model.safetensors.index.json", index_of(shards, self.files.spec.parameters))
        config = companions.converted_config(self.files, self.plan.to_config(self.naming), self._dtype)
        if self.files.gguf is None:
            companions.copy_files(self.files.path, folder.path)
        else:
            self._write_tokenizer(folder, config)
        folder.write_json("config.json", config)

    def _write_tokenizer(self, folder: PartialFolder, config: dict[str, object]) -> None:
        """From a GGUF: the tokenizer as files, and every token that ends a reply in the config."""
        from macllm.tokenizer.save import save_tokenizer

        try:
            tokenizer = self.files.tokenizer()
            save_tokenizer(tokenizer, folder.path)
        except TokenizerError as error:
            self.notices.append(f"no tokenizer was written: {error}")
            return
        known = config.get("eos_token_id")
        ends = known if isinstance(known, list) else [known] if known is not None else []
        ends = [*ends, *sorted(tokenizer.eos_ids - set(ends))]
        if ends:
            config["eos_token_id"] = ends if len(ends) > 1 else ends[0]

    def _stored(self, canonical: Iterable[str]) -> tuple[str, ...]:
        """The stored names of canonical tensors, each once."""
        return tuple(dict.fromkeys(self.naming.stored(name)[0] for name in canonical))

    def _result(self, total: int, elapsed: float) -> Conversion:
        stored = self._stored
        return Conversion(
            path=self.destination,
            parameters=self.files.spec.parameters,
            size_bytes=total,
            quantization=self.plan.to_config(self.naming),
            dtype=self._dtype,
            kept=stored(self.plan.kept),
            quantized=stored((*self.plan.quantized, *self.plan.requantized)),
            plain=stored(name for name, q in self.plan.formats.items() if q is None),
            notices=tuple(self.notices),
            elapsed_s=elapsed,
            peak_memory_bytes=mx.get_peak_memory(),
        )


def _notices(plan: Plan, stored: Callable[[Iterable[str]], tuple[str, ...]]) -> Iterator[str]:
    def listed(canonical: tuple[str, ...]) -> str:
        names = stored(canonical)
        shown = ", ".join(name.removesuffix(".weight") for name in names[:3])
        return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    if plan.unfit:
        yield f"not quantized, the width is no multiple of the group: {listed(plan.unfit)}"
    if plan.expanded:
        yield (
            f"expanded, MLX has no such packing: {listed(plan.expanded)}; -q with --requantize packs them again, at a "
            "loss"
        )
    if plan.unlike:
        kinds = " and ".join(sorted({str(plan.formats[name]) for name in plan.unlike}))
        yield f"kept as they came ({kinds}): {listed(plan.unlike)}"
    if plan.requantized:
        yield f"quantized a second time, which loses more than once from 16 bits: {listed(plan.requantized)}"
