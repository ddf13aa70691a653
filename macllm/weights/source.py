"""The weights a conversion reads: how each tensor is held, in which type, and its rows as the target wants them."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.kernels import dispatch
from macllm.nn.stored import DTYPES, Dense, Packed, Stored
from macllm.quantization import NF4_GROUP, Quantization
from macllm.weights import gguf_types
from macllm.weights.checkpoint import Checkpoint
from macllm.weights.model_files import ModelFiles
from macllm.weights.names import Naming, Reader, hugging_face
from macllm.weights.operations import Relation
from macllm.weights.parameters import check_tensors
from macllm.weights.plan import Held, Target
from macllm.weights.safetensors import SafetensorsCheckpoint

_FILE_DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
_PLAIN_TYPES = ("F32", "F16", "BF16", "F64")
_CHUNK = 1 << 20  # weights at once: intermediates of a large matrix stay small beside it


@dataclass(frozen=True)
class Source:
    """A model to be converted. Raises CheckpointError where its tensors are not those of its config."""

    files: ModelFiles
    target: Target

    def __post_init__(self) -> None:
        check_tensors(self.files.spec, self.checkpoint, self.naming)

    @cached_property
    def naming(self) -> Naming:
        return self.files.naming

    @cached_property
    def target_naming(self) -> Naming:
        """Names of what is written: Hugging Face's, as mlx-lm has them."""
        return hugging_face(self.files.spec)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return self.files.checkpoint(self._gguf_dtype)

    @cached_property
    def held(self) -> dict[str, Held]:
        """How every quantizable tensor is held, by canonical name."""
        return {
            tensor.name: self._held(tensor.name) for tensor in self.files.spec.tensors() if tensor.quantizable
        }

    @cached_property
    def dtype(self) -> mx.Dtype | None:
        """The one type of all that is not packed, scales included; None: each tensor keeps its own.

        Readers promote: scales in float16 beside norms in bfloat16 would make mlx-lm compute in float32. Affine
        scales are float16 where the family's numbers allow it (bfloat16 has 8 bits of precision); MLX expands
        the other modes to bfloat16.
        """
        if self.target.dtype is not None:
            return DTYPES[self.target.dtype]
        if self.files.gguf is not None:
            return self._gguf_dtype
        if not self.target.quantize or any(held.quantized for held in self.held.values()):
            return None
        return self._half if self.target.base.mode in ("affine", "nf4") else mx.bfloat16

    def dtype_of(self, name: str) -> mx.Dtype:
        """The type in which a plain tensor is written."""
        if self.dtype is None or (name in self._precise and self.files.gguf is None):
            return self._dtype_of(name)
        return mx.float32 if name in self._precise else self.dtype  # as every GGUF has it

    @cached_property
    def _precise(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.files.spec.tensors() if tensor.precise)

    @cached_property
    def idle(self) -> dict[str, str]:
        """What the model does without and MLX's tools ask for all the same: names as written, and as held."""
        if not self.files.spec.names.idle:
            return {}
        pattern = re.compile("|".join(self.files.spec.names.idle))
        here, there = (
            naming.stored("norm.weight")[0].removesuffix("norm.weight")
            for naming in (self.naming, self.target_naming)
        )
        held = [name for name in self.checkpoint.names() if pattern.fullmatch(name)]
        return {there + name.removeprefix(here): name for name in sorted(held)}

    def idle_type(self, name: str) -> mx.Dtype:
        """The type in which one of those is written, by its name as written."""
        return self.dtype or self._plain_type(self.idle[name])

    def read_idle(self, name: str) -> mx.array:
        """One of those, plain."""
        return self.checkpoint.read_dense(self.idle[name], self.idle_type(name))

    def read(self, target: Relation) -> Stored:
        """What ``target`` stores: rows, stacks and offsets as Hugging Face has them."""
        first = self.naming.relation(target.canonical[0].name)
        if (first.canonical, first.operations) == (target.canonical, target.operations):
            return self.checkpoint.read(first.stored[0])  # as it is: no number changes on its way
        whole = target.store([self._reader.read(tensor.name) for tensor in target.canonical])
        assert len(whole) == 1, "MLX's form keeps stacks whole"
        return whole[0]

    def several(self, target: Relation) -> list[mx.array]:
        """The small tensors that ``target`` stores one canonical one as, in its form."""
        name = target.canonical[0].name
        whole = self._formed(name, self._reader.read(name), None)
        assert isinstance(whole, Dense)
        return [one.array for one in target.store([whole]) if isinstance(one, Dense)]

    def rows(self, target: Relation, packing: Quantization | None) -> Iterator[tuple[int, Stored]]:
        """What ``target`` stores, some rows at a time, each with the number of its first row."""
        stored = self.read(target)
        mx.eval(stored.arrays())
        name = target.canonical[0].name
        if not stored.shape:  # a single number
            yield 0, self._formed(name, stored, None)
            return
        step = rows_at_once(stored.shape, packing)
        for start in range(0, stored.shape[0], step):
            yield start, self._formed(name, stored.rows(slice(start, start + step)), packing)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.naming, self.checkpoint.label, self.checkpoint.read)

    def identity(self) -> list[list[Any]]:
        """What tells these files from others: path, size, time of change."""
        if self.files.gguf is not None:
            paths = {
                tensor.file.path for tensor in self.files.gguf.tensors.values()
            }  # several where it is split
        else:
            paths = {*self.files.path.glob("*.safetensors"), self.files.path / "config.json"}
        return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(paths)]

    @property
    def _half(self) -> mx.Dtype:
        return mx.bfloat16 if self.files.spec.needs_bfloat16_range else mx.float16

    @cached_property
    def _gguf_dtype(self) -> mx.Dtype:
        """A GGUF keeps norms in float32 whatever its matrices are: those decide."""
        if self.target.dtype is not None:
            return DTYPES[self.target.dtype]
        if self.files.gguf is None:
            return mx.float16
        tensors = self.files.gguf.tensors.values()
        types = {tensor.type_name for tensor in tensors if len(tensor.shape) > 1}
        if types == {"F32"} and not self.target.quantize:
            return mx.float32
        return mx.bfloat16 if "BF16" in types and types <= {"BF16", "F32"} else self._half

    def _held(self, name: str) -> Held:
        relation = self.naming.relation(name)
        each = {self._held_as(stored) for stored in relation.stored}
        quantized = any(held.quantized for held in each)
        one = each.pop() if len(each) == 1 and relation.moves_whole_groups else Held(quantized)
        return one if one.quantized == quantized else Held(quantized)

    def _held_as(self, stored: str) -> Held:
        if self.files.gguf is not None:
            type_name = self.files.gguf.tensors[stored].type_name
            return Held(type_name not in _PLAIN_TYPES, gguf_types.packing(type_name))
        assert isinstance(self.checkpoint, SafetensorsCheckpoint)
        packing = self.checkpoint.quantization(stored)
        return Held(packing is not None, packing)

    def _dtype_of(self, name: str) -> mx.Dtype:
        """The type a folder keeps a tensor in; of a packed one, that of its affine scales."""
        names = self.naming.stored(name)
        return self._plain_type(
            names[0] if names else self.naming.stored("norm.weight")[0]
        )  # left out: as others

    def _plain_type(self, stored: str) -> mx.Dtype:
        placement = self.checkpoint.placement(stored)
        if placement in _FILE_DTYPES:
            return _FILE_DTYPES[placement]
        tensor = self.checkpoint.read(stored)  # not evaluated: an error, or a packed matrix's type
        assert isinstance(tensor, Packed)
        affine = tensor.quantization.mode == "affine"
        return tensor.group_scales.dtype if affine else self._dtype_of("norm.weight")

    def _formed(self, name: str, part: Stored, packing: Quantization | None) -> Stored:
        dtype = self.dtype_of(name)
        if isinstance(part, Packed) and part.quantization == packing:
            if packing.mode == "nf4":
                return part.grouped()
            if packing.mode != "affine" or part.biases is None:
                return part
            wide = [self._cast(name, array, dtype) for array in (part.group_scales, part.biases)]
            return replace(part, scales=wide[0], biases=wide[1])
        values = part.dequantize(mx.float32) if isinstance(part, Packed) else part.array
        values = self._cast(name, values, dtype)
        if packing is None:
            return Dense(values)
        weight, scales, *biases = dispatch.pack(packing, values)
        return Packed(weight, scales, biases[0] if biases else None, packing)

    def _cast(self, name: str, values: mx.array, dtype: mx.Dtype) -> mx.array:
        """Raises CheckpointError rather than to write infinity for a number beyond float16."""
        if values.dtype == dtype:
            return values
        cast = values.astype(dtype)
        if dtype == mx.float16 and not mx.isfinite(cast).all().item():
            raise CheckpointError(
                f"{self.checkpoint.label}: {self.naming.stored(name)[0]} holds values that float16 cannot; "
                "add --dtype bfloat16"
            )
        return cast


def rows_at_once(shape: tuple[int, ...], packing: Quantization | None) -> int:
    """Rows whose intermediates stay small, and that end where groups of NF4's scales do."""
    if len(shape) < 2:
        return shape[0]
    step = max(1, _CHUNK // max(1, math.prod(shape[1:])))
    if packing is None or packing.mode != "nf4" or len(shape) > 2:
        return step
    whole = NF4_GROUP // math.gcd(
        NF4_GROUP, shape[1] // packing.group_size
    )  # the fewest that end with a group
    return -(-step // whole) * whole
