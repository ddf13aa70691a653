"""What a model is, in numbers: layers, sizes, how its weights are stored and placed, and on which Mac it fits.

A config is enough; where the weights are there, their headers are read too. No weight is loaded.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from macllm import sizes
from macllm.errors import CheckpointError, ConfigError, OptionError
from macllm.fit import (
    PRECISIONS,
    Needed,
    bytes_by_precision,
    longest_context,
    plain_kv_bytes,
    stated_integer,
    usable_bytes,
)
from macllm.quantization import Quantization
from macllm.spec import KeyValues, ModelSpec
from macllm.spec.memory import KV_WIDTHS, NO_KV_BITS
from macllm.tune.memory import least_bytes

if TYPE_CHECKING:
    from macllm.weights.gguf_file import GGUFFile
    from macllm.weights.model_files import ModelFiles

MACS_GB = (8, 16, 24, 32, 64, 128)  # as Apple sells them: powers of two
STORED = "stored"  # beside the precisions: the weights as they are
_VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Placed:
    """The tensors of one storage format, and what becomes of them in memory."""

    format: str
    tensors: int
    bytes: int
    placement: str


@dataclass(frozen=True)
class Fit:
    """What a Mac of this much memory runs: by precision the longest context, 0 where the model does not fit."""

    memory_gb: int
    usable_bytes: int
    contexts: Mapping[str, int]
    qlora: bool | None  # None: unknown for a model that mlx-lm runs


@dataclass(frozen=True)
class Explanation:
    """A model's facts. ``native`` is false where mlx-lm's classes run it; None is what cannot be known then.

    Bytes of the KV cache are those of 16-bit values, or of ``kv_bits`` with 16-bit scales. ``needed_bytes`` is what
    weights, cache and prefill take by precision at ``context`` tokens.
    """

    name: str
    family: str
    native: bool
    layers: int | None
    parameters: int | None
    weight_bytes: int | None
    kv_bits: int | None  # that keys and values are held in; None: plain
    kv_bytes_per_token: int | None
    max_context: int | None
    state_bytes: int | None  # of recurrent layers: it does not grow
    rewindable: bool | None
    rewind_tokens: int | None  # that can always be taken back; None: all, or not known
    trainable_memory: int | None
    placements: tuple[Placed, ...]
    context: int | None
    kv_bytes: int | None
    needed_bytes: Mapping[str, int]
    fits: tuple[Fit, ...]
    notes: tuple[str, ...]
    spec: ModelSpec | None


def explain(
    files: "ModelFiles",
    *,
    name: str | None = None,
    context: int | None = None,
    dtype: str = "float16",
    kv_bits: int | None = None,
) -> Explanation:
    """Explains a model; ``context`` is the number of tokens to count memory for (None: the longest).

    ``dtype`` is the type it would be computed in, which the words about a GGUF's scales depend on; ``kv_bits`` packs
    keys and values. Raises ConfigError for a config that cannot be run, OptionError for a context beyond the model's
    and for packed keys and values of a model that mlx-lm runs.
    """
    if kv_bits is not None and not files.native:
        raise OptionError(f"{files.label}: {NO_KV_BITS}")
    spec = (
        files.spec if files.native else None
    )  # first: a config that is refused is refused before its weights
    weights = _Weights(files, dtype)
    facts = _native(spec, weights, kv_bits) if spec is not None else _foreign(files, weights)
    longest = facts.max_context
    if context is not None and (context < 1 or (longest is not None and context > longest)):
        limit = f"from 1 to the model's {longest}" if longest is not None else "at least 1"
        raise OptionError(f"context={context} is out of range (expected {limit})")
    tokens = context if context is not None else longest
    return Explanation(
        name=name or (files.path.stem if files.gguf is not None else files.path.resolve().name),
        family=facts.family,
        native=files.native,
        layers=facts.layers,
        parameters=facts.parameters,
        weight_bytes=weights.stored_bytes,
        kv_bits=kv_bits,
        kv_bytes_per_token=facts.kv(1) if facts.kv is not None else None,
        max_context=longest,
        state_bytes=sizes.state_bytes(facts.spec) if facts.spec is not None else None,
        rewindable=True if facts.spec is not None else None,  # every native cache is
        rewind_tokens=facts.spec.rewind_tokens if facts.spec is not None else None,
        trainable_memory=_trainable(facts.spec, weights.stored_bytes),
        placements=weights.placements,
        context=tokens,
        kv_bytes=facts.kv(tokens) if facts.kv is not None and tokens is not None else None,
        needed_bytes={key: need(tokens) for key, need in facts.needed.items()} if tokens is not None else {},
        fits=tuple(_fit(memory, facts) for memory in MACS_GB) if facts.needed and longest else (),
        notes=(*weights.notes, *_plain_layers(facts.spec, kv_bits)),
        spec=facts.spec,
    )


@dataclass(frozen=True)
class _Facts:
    family: str
    layers: int | None
    parameters: int | None
    max_context: int | None
    kv: Needed | None
    needed: Mapping[str, Needed]
    spec: ModelSpec | None


def _native(spec: ModelSpec, weights: "_Weights", kv_bits: int | None) -> _Facts:
    held = bytes_by_precision(spec)
    if weights.loaded_bytes is not None and weights.loaded_bytes != held["16"]:
        held[STORED] = weights.loaded_bytes
    return _Facts(
        spec.family,
        len(spec.layers),
        spec.parameters,
        spec.max_context,
        partial(sizes.kv_bytes, spec, kv_bits=kv_bits),
        {key: partial(sizes.working_bytes, spec, count, kv_bits=kv_bits) for key, count in held.items()},
        spec,
    )


def _foreign(files: "ModelFiles", weights: "_Weights") -> _Facts:
    """What a config says of an architecture that macllm has no family for; mlx-lm's classes run it."""
    family = files.config.get("model_type")
    if not isinstance(family, str):
        raise ConfigError(f"{files.label}: there is no 'model_type'; this is not a language model's config")
    config = files.text_config
    kv = plain_kv_bytes(config)
    held: dict[str, int] = {}
    if weights.parameters is not None and kv is not None:
        held = {
            key: packing.nbytes(weights.parameters) if packing is not None else weights.parameters * 2
            for key, packing in PRECISIONS.items()
        }
        if weights.loaded_bytes is not None and weights.loaded_bytes != held["16"]:
            held[STORED] = weights.loaded_bytes
    return _Facts(
        family,
        stated_integer(config, "num_hidden_layers", "n_layer", "n_layers"),
        weights.parameters,
        files.stated_context,
        kv,
        {key: partial(_sum, count, kv) for key, count in held.items() if kv is not None},
        None,
    )


def _sum(weight_bytes: int, kv: Needed, tokens: int) -> int:
    return weight_bytes + kv(tokens)


def _plain_layers(spec: ModelSpec | None, kv_bits: int | None) -> tuple[str, ...]:
    """A note on the layers whose keys and values stay plain although they were to be packed."""
    if spec is None or kv_bits is None:
        return ()
    caches = [cache for cache in spec.caches if isinstance(cache, KeyValues)]
    plain = sum(not cache.packable for cache in caches)
    if not plain:
        return () if caches else (f"It keeps no keys and values: --kv-bits {kv_bits} changes nothing.",)
    which = "All" if plain == len(caches) else f"{plain} of the {len(caches)}"
    return (
        f"{which} caches of keys and values stay plain, as --kv-bits packs heads of "
        f"{', '.join(map(str, KV_WIDTHS[:-1]))} or {KV_WIDTHS[-1]} numbers that attention uses as they were stored.",
    )


def _trainable(spec: ModelSpec | None, weight_bytes: int | None) -> int | None:
    return least_bytes(spec, weight_bytes) if spec is not None and weight_bytes is not None else None


def _fit(memory_gb: int, facts: _Facts) -> Fit:
    usable = usable_bytes(memory_gb)
    longest = facts.max_context or 0
    contexts = {key: longest_context(need, usable, longest) for key, need in facts.needed.items()}
    qlora = None
    if facts.spec is not None:
        qlora = least_bytes(facts.spec, bytes_by_precision(facts.spec)["4"]) <= usable
    return Fit(memory_gb, usable, contexts, qlora)


@dataclass(frozen=True)
class _Tensor:
    """One stored tensor: its format, what becomes of it, bytes on disk, values, and its packing in memory."""

    format: str
    placement: str
    bytes: int
    values: int
    packing: Quantization | None


class _Weights:
    """The stored weights: from the files' headers where they are there, else from the config."""

    def __init__(self, files: "ModelFiles", dtype: str) -> None:
        self.parameters: int | None = None
        self.stored_bytes: int | None = None
        self.loaded_bytes: int | None = None  # with packed matrices packed, all else in 16 bits
        self.placements: tuple[Placed, ...] = ()
        self.notes: tuple[str, ...] = ()
        if files.gguf is not None:
            self._add(_gguf_tensors(files.gguf, dtype))
            return
        if any(files.path.glob("*.safetensors")):
            try:
                self._add(_folder_tensors(files))
                return
            except (CheckpointError, ConfigError) as error:
                self.notes = (f"The weights here cannot be read: {error}",)
        if files.native:
            self._add(_config_tensors(files))
        elif self.notes:
            self.stored_bytes = sum(file.stat().st_size for file in files.path.glob("*.safetensors"))

    def _add(self, tensors: Iterable[_Tensor]) -> None:
        groups: dict[tuple[str, str], list[_Tensor]] = defaultdict(list)
        self.parameters = self.stored_bytes = self.loaded_bytes = 0
        for tensor in tensors:
            groups[tensor.format, tensor.placement].append(tensor)
            self.parameters += tensor.values
            self.stored_bytes += tensor.bytes
            packing = tensor.packing
            self.loaded_bytes += packing.nbytes(tensor.values) if packing is not None else tensor.values * 2
        placed = [
            Placed(format_, len(group), sum(tensor.bytes for tensor in group), placement)
            for (format_, placement), group in groups.items()
        ]
        self.placements = tuple(sorted(placed, key=lambda group: -group.bytes))


def _gguf_tensors(file: "GGUFFile", dtype: str) -> Iterator[_Tensor]:
    import mlx.core as mx

    from macllm.kernels import dispatch
    from macllm.weights import gguf_types

    compute: mx.Dtype = getattr(mx, dtype)
    kept = dispatch.kept_blocks(compute)
    for tensor in file.tensors.values():
        is_matrix = len(tensor.shape) > 1
        packing = gguf_types.blocks(tensor.type_name) if is_matrix else None
        placement = gguf_types.KEPT
        if packing is None or packing.mode not in kept:
            packing = gguf_types.packing(tensor.type_name) if is_matrix else None
            placement = gguf_types.placement(tensor.type_name, compute, compute)
        yield _Tensor(tensor.type_name, placement, tensor.nbytes, math.prod(tensor.shape), packing)


def _folder_tensors(files: "ModelFiles") -> Iterator[_Tensor]:
    checkpoint = files.folder_checkpoint()
    for name in checkpoint.names():
        packing, format_ = checkpoint.quantization(name), checkpoint.placement(name)
        placement = "stays packed" if packing is not None else "computed in 16 bits"
        values = math.prod(checkpoint.shape(name))
        yield _Tensor(format_, placement, checkpoint.nbytes(name), values, packing)


def _config_tensors(files: "ModelFiles") -> Iterator[_Tensor]:
    formats = files.formats()
    dtype = str(files.config.get("dtype") or files.config.get("torch_dtype")).removeprefix("torch.")
    # beside packed matrices MLX's tools write 16 bits
    value_bytes = 2 if any(formats.values()) else _VALUE_BYTES.get(dtype, 2)
    for tensor in files.spec.tensors():
        packing = formats.get(tensor.name)
        stored = packing.nbytes(tensor.size) if packing is not None else tensor.size * value_bytes
        format_ = str(packing) if packing is not None else f"{value_bytes * 8}-bit"
        yield _Tensor(format_, "by the config: no weights here", stored, tensor.size, packing)
