"""Adapters on disk: mlx-lm's files and PEFT's, read and written.

mlx-lm keeps ``lora_a`` (I, r) and ``lora_b`` (r, O) under its module paths, of a stack (N, r, I) and (N, O, r), and
with DoRA ``m`` (O,). PEFT keeps ``lora_A.weight`` (r, I), ``lora_B.weight`` (O, r) and ``lora_magnitude_vector``. A
tensor's name says which way round it lies, also where it is square. What mlx-lm has no module for (the halves of
latent attention's one matrix, say) stands in its file under the canonical name: only macllm reads that, as DoRA on
stacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.adapters import mlx_lm, peft, peft_other
from macllm.adapters.fold import grouped
from macllm.adapters.folder import CONFIG, read_config, read_tensors, save
from macllm.adapters.insert import insert
from macllm.adapters.kept import WEIGHTS
from macllm.adapters.learnable import matrices
from macllm.adapters.method import AnyMethod, Method
from macllm.adapters.names import AdapterNames
from macllm.adapters.other_files import OTHERS, read_other, write_other
from macllm.adapters.peft_other import read_other_peft, write_other_peft
from macllm.errors import CheckpointError, OptionError
from macllm.nn.adapted import Factors, adapt
from macllm.nn.adapted import adapters as adapters_of
from macllm.nn.beside import learned, put_learned, restore
from macllm.nn.decoder import Decoder
from macllm.spec import ModelSpec

PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Layout:
    """How a format names the tensors of one module, and whether its factors lie the other way round than ours."""

    prefix: str
    a: str
    b: str
    magnitude: tuple[str, ...]  # the first is written
    turned: bool  # of single matrices; those of stacks always are

    def module(self, name: str) -> tuple[str, str] | None:
        """The module and the part of it that a tensor is; None where it is none of an adapter."""
        for part in (self.a, self.b, *self.magnitude):
            if name.startswith(self.prefix) and name.endswith(f".{part}"):
                return name[len(self.prefix) : -len(part) - 1], part
        return None

    def shape(self, part: str, matrix: tuple[int, ...], rank: int) -> tuple[int, ...]:
        """The shape of a part of the adapter of a matrix (..., O, I)."""
        *count, outputs, inputs = matrix
        if part in self.magnitude:
            return (*count, outputs)
        sides = (inputs, rank) if part == self.a else (rank, outputs)
        return (*count, *(sides[::-1] if self.turns(matrix) else sides))

    def turns(self, matrix: tuple[int, ...]) -> bool:
        return self.turned or len(matrix) == 3

    def rank_axis(self, matrix: tuple[int, ...]) -> int:
        """The axis of the first factor that is as long as the rank."""
        return -2 if self.turns(matrix) else -1


MLX_LM = Layout("", "lora_a", "lora_b", ("m",), turned=False)
PEFT = Layout(
    "base_model.model.",
    "lora_A.weight",
    "lora_B.weight",
    ("lora_magnitude_vector", "lora_magnitude_vector.weight"),
    turned=True,
)


@dataclass(frozen=True)
class Adapter:
    """A learned adapter: how it was learned, and its factors by the canonical names of the matrices.

    ``tensors``: what methods learn that are no factors (:func:`macllm.adapters.shapes.learned_shapes`).
    """

    method: AnyMethod
    factors: Mapping[str, Factors]
    tensors: Mapping[str, mx.array] = field(default_factory=dict)


def taken(model: Decoder, method: AnyMethod) -> Adapter:
    """The adapter that is in a model, which learned by ``method``."""
    factors = {name: one.factors for name, one in adapters_of(model)}
    return Adapter(method, factors, learned(model))


def apply(model: Decoder, adapter: Adapter) -> None:
    """Puts an adapter into a model, in place of one that it has; it alone may be trained on."""
    restore(model)
    model.freeze()
    method, factors = adapter.method, adapter.factors
    if not isinstance(method, Method):
        insert(model, method)
        put_learned(model, adapter.tensors)
        return
    if method.kind == "qalora":
        stored = dict(model.tensors())
        factors = {name: grouped(stored[f"{name}.weight"], one) for name, one in factors.items()}
    adapt(model, factors, method.dropout)


def write(folder: Path, spec: ModelSpec, adapter: Adapter, extra: Mapping[str, Any] | None = None) -> None:
    """Writes mlx-lm's two files, or those of a method that it does not have; what was there stays until they are whole.

    ``extra``: further keys of the config, as mlx-lm keeps all settings of a run in it. Raises MacllmError where it
    cannot be written.
    """
    if not isinstance(adapter.method, Method):
        write_other(folder, adapter.method, adapter.tensors, extra)
        return
    method, factors = adapter.method.on_disk, _whole(adapter)
    stored, left = AdapterNames(spec, "mlx").store(factors)
    stored |= {name: factors[name] for name in left}
    rank, scale = max(one.rank for one in stored.values()), method.factor
    stored = {module: _widened(one, rank, scale) for module, one in stored.items()}  # a file has one of each
    config = {**(extra or {}), **mlx_lm.write(method, rank, stored, len(spec.layers))}
    save(folder, WEIGHTS, _tensors(MLX_LM, stored), config, {})


def write_peft(folder: Path, spec: ModelSpec, adapter: Adapter, base_model: str = "") -> None:
    """Writes PEFT's two files. ``base_model``: the repository or path that its config names.

    Raises OptionError for a matrix whose adapter PEFT has no place for, MacllmError where it cannot be written.
    """
    if not isinstance(adapter.method, Method):
        write_other_peft(folder, PEFT_WEIGHTS, spec, adapter.method, adapter.tensors, base_model)
        return
    names = AdapterNames(spec, "hub")
    stored, left = names.store(_whole(adapter))
    stacks = [module for module, one in stored.items() if one.a.ndim == 3]
    if left or stacks:
        raise OptionError(
            f"{(*sorted(left), *stacks)[0]} has an adapter that PEFT's format has no place for; "
            "train with targets that leave it out, or keep mlx-lm's format"
        )
    config = peft.write(adapter.method.on_disk, stored, list(names.shapes()), base_model)
    save(folder, PEFT_WEIGHTS, _tensors(PEFT, stored), config, {"format": "pt"})


def read(folder: Path, spec: ModelSpec) -> Adapter:
    """The adapter in a folder, mlx-lm's or PEFT's, for a model of this spec.

    Raises ConfigError and CheckpointError: one sentence with the tensor and the shapes where it is of another base
    or rank.
    """
    config = read_config(folder)
    if config.get("peft_type") in peft_other.KINDS:
        other, tensors = read_other_peft(folder / PEFT_WEIGHTS, spec, config)
        return Adapter(other, {}, tensors)
    if "peft_type" in config:
        found = peft.read(config, str(folder / CONFIG))
        return Adapter(found.method, _factors(folder / PEFT_WEIGHTS, spec, PEFT, found.rank, found.scale))
    if config.get("fine_tune_type") in OTHERS:
        other, tensors = read_other(folder, spec, config)
        return Adapter(other, {}, tensors)
    method = mlx_lm.read(config, str(folder / CONFIG))
    factors = _factors(
        folder / WEIGHTS, spec, MLX_LM, lambda module: method.rank, lambda module: method.factor
    )
    return Adapter(method, factors)


def _whole(adapter: Adapter) -> dict[str, Factors]:
    return {name: one.whole() for name, one in adapter.factors.items()}


def _widened(factors: Factors, rank: int, scale: float) -> Factors:
    """The same change with another rank, which zeros fill up, and another scale."""
    more = rank - factors.rank
    a, b = factors.a, factors.b
    if factors.scale != scale:
        b = b * (factors.scale / scale)
    if more:
        lead = [(0, 0)] * (a.ndim - 2)
        a, b = mx.pad(a, [*lead, (0, 0), (0, more)]), mx.pad(b, [*lead, (0, more), (0, 0)])
    return Factors(a, b, scale, factors.magnitude)


def _tensors(layout: Layout, stored: Mapping[str, Factors]) -> dict[str, mx.array]:
    tensors: dict[str, mx.array] = {}
    for module, factors in stored.items():
        start = f"{layout.prefix}{module}"
        a, b = factors.a, factors.b
        if layout.turned or a.ndim == 3:
            a, b = a.swapaxes(-1, -2), b.swapaxes(-1, -2)
        tensors |= {f"{start}.{layout.a}": a, f"{start}.{layout.b}": b}
        if factors.magnitude is not None:
            tensors[f"{start}.{layout.magnitude[0]}"] = factors.magnitude
    return tensors


def _factors(
    file: Path, spec: ModelSpec, layout: Layout, rank: Callable[[str], int], scale: Callable[[str], float]
) -> dict[str, Factors]:
    """The tensors of a file by canonical name. ``rank`` and ``scale`` are what the config says of a module."""
    by_module = _by_module(file, layout)
    names = AdapterNames(spec, "mlx" if layout is MLX_LM else "hub", by_module)
    shapes = names.shapes()
    if layout is MLX_LM:  # what it has no module for
        shapes |= {tensor.name.removesuffix(".weight"): tensor.shape for tensor in matrices(spec)}
    stored = {}
    for module, parts in by_module.items():
        if module not in shapes:
            raise CheckpointError(_unknown(file, spec, layout, module, names))
        _check(file, layout, module, parts, shapes[module], rank(module))
        a, b = (parts[part].astype(mx.float32) for part in (layout.a, layout.b))
        if layout.turns(shapes[module]):
            a, b = a.swapaxes(-1, -2), b.swapaxes(-1, -2)
        lengths = [parts[part].astype(mx.float32) for part in layout.magnitude if part in parts]
        stored[module] = Factors(a, b, scale(module), lengths[0] if lengths else None)
    try:
        found = names.load(stored)
    except KeyError as error:
        raise CheckpointError(
            f"{file}: expert {error.args[0]} has no adapter where others of its layer have one; save it again"
        ) from None
    known = {module for place in names.places for module in place.modules}
    return found | {name: one for name, one in stored.items() if name not in known}


def _by_module(file: Path, layout: Layout) -> dict[str, dict[str, mx.array]]:
    """The tensors of each module by part."""
    modules: dict[str, dict[str, mx.array]] = {}
    for name, array in read_tensors(file).items():
        found = layout.module(name)
        if found is None:
            raise CheckpointError(
                f"{file}: {name} is no tensor of a low-rank adapter (expected names that end in {layout.a} or "
                f"{layout.b}); train it again with LoRA alone"
            )
        module, part = found
        modules.setdefault(module, {})[part] = array
    return modules


def _check(
    file: Path,
    layout: Layout,
    module: str,
    parts: Mapping[str, mx.array],
    matrix: tuple[int, ...],
    rank: int,
) -> None:
    """Raises CheckpointError where a part is missing, or has another shape than base and config ask for."""
    for part in (layout.a, layout.b):
        if part not in parts:
            raise CheckpointError(
                f"{file}: {layout.prefix}{module}.{part} is missing; save the adapter again"
            )
    for part, array in parts.items():
        found, expected = tuple(array.shape), layout.shape(part, matrix, rank)
        if found == expected:
            continue
        name = f"{file}: {layout.prefix}{module}.{part} has shape {found}"
        first = parts[layout.a]
        own = first.shape[layout.rank_axis(matrix)] if first.ndim == len(matrix) else rank
        if found == layout.shape(part, matrix, own):
            raise CheckpointError(
                f"{name} where rank {rank} in {CONFIG} asks for {expected}; take the {CONFIG} of these weights"
            )
        turned = len(found) > 1 and found == (*expected[:-2], *expected[:-3:-1])
        why = "it lies the other way round" if turned else "the adapter belongs to another base"
        raise CheckpointError(f"{name} where this model asks for {expected}; {why}")


def _unknown(file: Path, spec: ModelSpec, layout: Layout, module: str, names: AdapterNames) -> str:
    if module in names.torn:
        held = " and ".join(names.torn[module])
        return (
            f"{file}: {layout.prefix}{module} has an adapter, but macllm holds that matrix as {held}, which it "
            "cannot be divided between; train without it"
        )
    return (
        f"{file}: {layout.prefix}{module}.{layout.a} is of a matrix that this model (family {spec.family!r}, "
        f"{len(spec.layers)} layers) does not have; the adapter belongs to another base"
    )
