"""The plan of a conversion: how each matrix will be stored, decided before any weight is read."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from macllm.errors import OptionError
from macllm.quantization import DEFAULTS, RECIPES, Mode, Quantization, QuantizationPlan
from macllm.spec import ModelSpec, TensorSpec
from macllm.weights.names import Naming
from macllm.weights.operations import Relation

Predicate: TypeAlias = Callable[[TensorSpec], Quantization]
Formats: TypeAlias = Mapping[str, Quantization | None]


@dataclass(frozen=True)
class Target:
    """What a conversion is asked for; nothing asked keeps every tensor as it is.

    ``bits``, ``group_size``, ``mode`` and ``recipe`` imply ``quantize``. ``dtype`` is the type of all that is
    not packed, scales included. ``requantize`` allows to quantize what is quantized already, which loses more
    than either step alone. Raises OptionError or ConfigError for what does not exist or contradicts itself.
    """

    quantize: bool = False
    bits: int | None = None
    group_size: int | None = None
    mode: Mode | None = None
    recipe: str | None = None
    dtype: str | None = None
    dequantize: bool = False
    requantize: bool = False

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in DEFAULTS:
            raise OptionError(f"mode={self.mode!r} is not supported (expected {', '.join(DEFAULTS)})")
        if self.recipe is not None:
            self._check_recipe(self.recipe)
        if self.names_packing:
            object.__setattr__(self, "quantize", True)
        if self.quantize and self.dequantize:
            raise OptionError("quantize and dequantize contradict each other; choose one of them")
        if self.requantize and not self.quantize:
            raise OptionError("requantize does nothing without quantize; add it, or leave requantize out")
        if self.quantize:
            self.base.checked("quantization")

    @property
    def base(self) -> Quantization:
        """The packing asked for, defaults filled in."""
        mode = self.mode or "affine"
        bits, group_size = DEFAULTS[mode]
        return Quantization(
            bits if self.bits is None else self.bits,
            group_size if self.group_size is None else self.group_size,
            mode,
        )

    @property
    def names_packing(self) -> bool:
        """Whether more is asked than to quantize."""
        return any(value is not None for value in (self.bits, self.group_size, self.mode, self.recipe))

    def _check_recipe(self, recipe: str) -> None:
        if recipe not in RECIPES:
            raise OptionError(f"recipe={recipe!r} does not exist (expected {', '.join(RECIPES)})")
        if self.mode not in (None, "affine"):
            raise OptionError(f"recipe {recipe!r} mixes affine bits; it does not go with mode={self.mode!r}")
        if self.bits is not None:
            raise OptionError(f"recipe {recipe!r} sets the bits itself; leave bits={self.bits} out")

    def asks_for(self, packing: Quantization, wanted: Quantization) -> bool:
        """Whether ``packing`` is what was asked for, ``wanted`` with defaults filled in: only what was named counts."""
        bits = (self.bits is None and self.recipe is None) or packing.bits == wanted.bits
        group = self.group_size is None or packing.group_size == wanted.group_size
        return bits and group and (self.mode is None or packing.mode == wanted.mode)


@dataclass(frozen=True)
class Held:
    """How a source holds a matrix: whether quantized, and in which of MLX's packings (None: in none of them)."""

    quantized: bool = False
    packing: Quantization | None = None


@dataclass(frozen=True)
class Plan:
    """The storage of every quantizable tensor by canonical name, and what there is to tell about it."""

    formats: Formats
    kept: tuple[str, ...] = ()  # codes taken over as they are
    unfit: tuple[str, ...] = ()  # width is no multiple of the group: stays plain
    expanded: tuple[str, ...] = ()  # quantized in the source, in no form that MLX has: becomes plain
    unlike: tuple[str, ...] = ()  # kept although packed otherwise than asked: the exceptions of the source
    requantized: tuple[str, ...] = ()
    quantized: tuple[str, ...] = ()

    def with_whole(self, stored: Iterable[Relation]) -> "Plan":
        """The plan with one packing for all that will be written as one tensor: of the wanted ones the widest.

        Codes that some parts would keep and others not are given up: the whole becomes plain.
        """
        formats, kept = dict(self.formats), set(self.kept)
        given_up: set[str] = set()
        for relation in stored:
            names = [tensor.name for tensor in relation.canonical]
            if len({formats.get(name) for name in names}) < 2:
                continue
            packings = [formats[name] for name in names]
            if kept.isdisjoint(names) and all(packing is not None for packing in packings):
                widest = max((packing for packing in packings if packing is not None), key=lambda q: q.bits)
                formats |= dict.fromkeys(names, widest)
            else:
                formats |= dict.fromkeys(names)
                given_up |= kept & set(names)
        return replace(
            self,
            formats=formats,
            kept=tuple(name for name in self.kept if name not in given_up),
            expanded=(*self.expanded, *(name for name in self.kept if name in given_up)),
        )

    def to_config(self, naming: Naming) -> QuantizationPlan:
        """As a config states it: the most common packing, and exceptions by stored module name."""
        common = Counter(q for q in self.formats.values() if q is not None).most_common(1)
        if not common:
            return QuantizationPlan()
        default = common[0][0]
        exceptions = {naming.module(name): q for name, q in self.formats.items() if q != default}
        return QuantizationPlan(default, exceptions)


def recipe(name: str, spec: ModelSpec, group_size: int) -> Predicate:
    """A mixed recipe of mlx-lm's: more bits for the head, and for v and down in the layers that need them.

    Those are the first and the last eighth of the layers and every third between (as llama.cpp's Q4_K_M has it).
    """
    low, high = (Quantization(bits, group_size) for bits in RECIPES[name])
    layers, eighth = len(spec.layers), len(spec.layers) // 8

    def choose(tensor: TensorSpec) -> Quantization:
        if tensor.name == "head.weight":
            return high
        if not tensor.name.endswith((".mixer.v.weight", ".channel.down.weight")):
            return low
        index = int(tensor.name.split(".")[1])
        sensitive = index < eighth or index >= 7 * layers // 8 or (index - eighth) % 3 == 2
        return high if sensitive else low

    return choose


def plan_for(
    spec: ModelSpec, base: Quantization | None, predicate: Predicate | None = None
) -> dict[str, Quantization | None]:
    """The packing of every quantizable tensor by canonical name: ``base``, or what ``predicate`` says.

    None where nothing is asked, for matrices whose width is no multiple of the group, and for routers: they are
    small, and who is chosen hangs on small differences.
    """
    formats: dict[str, Quantization | None] = {}
    for tensor in spec.tensors():
        if tensor.quantizable:
            wanted = base if base is None or predicate is None else predicate(tensor)
            fitting = wanted is not None and fits(tensor, wanted) and tensor.kind != "router"
            formats[tensor.name] = wanted if fitting else None
    return formats


def fits(tensor: TensorSpec, packing: Quantization) -> bool:
    """Whether MLX packs rows of this width so. Its nvfp4 packs 32 weights at once, two groups."""
    return tensor.shape[-1] % max(32, packing.group_size) == 0


def decide(
    spec: ModelSpec, target: Target, source: Mapping[str, Held], label: str, keep: Collection[str] = ()
) -> Plan:
    """The plan for a source; ``label`` names it in errors.

    Codes are kept wherever they can be, and those of ``keep`` where others are quantized again. Raises OptionError
    where the target would quantize a second time.
    """
    if target.dequantize:
        return Plan(plan_for(spec, None))
    if not target.quantize:
        formats = {name: held.packing for name, held in source.items()}
        return Plan(formats, kept=_packed(source), expanded=_expanded(source))
    base = target.base
    predicate = recipe(target.recipe, spec, base.group_size) if target.recipe is not None else None
    wanted = {
        tensor.name: predicate(tensor) if predicate is not None else base
        for tensor in spec.tensors()
        if tensor.quantizable
    }
    fitting = plan_for(spec, base, predicate)
    same = [
        name
        for name, held in source.items()
        if held.packing is not None and target.asks_for(held.packing, wanted[name])
    ]
    if target.requantize:
        left = [name for name in keep if source[name].packing is not None and name not in set(same)]
        return _without_routers(_requantized(source, fitting, [*same, *left]), spec)
    _refuse_second(spec, target, source, same, label)
    return _without_routers(_kept(source, fitting, same), spec)


def _without_routers(plan: Plan, spec: ModelSpec) -> Plan:
    """The plan that does not tell of routers, which stay plain on purpose."""
    routers = {tensor.name for tensor in spec.tensors() if tensor.kind == "router"}
    return replace(plan, unfit=tuple(name for name in plan.unfit if name not in routers))


def _kept(source: Mapping[str, Held], fitting: Formats, same: list[str]) -> Plan:
    """What is quantized stays as it is, what is not is quantized."""
    formats = {name: held.packing if held.quantized else fitting[name] for name, held in source.items()}
    plain = [name for name, held in source.items() if not held.quantized]
    return Plan(
        formats,
        kept=_packed(source),
        unfit=tuple(name for name in plain if fitting[name] is None),
        expanded=_expanded(source),
        unlike=tuple(name for name in _packed(source) if name not in set(same)),
        quantized=tuple(name for name in plain if fitting[name] is not None),
    )


def _requantized(source: Mapping[str, Held], fitting: Formats, same: list[str]) -> Plan:
    """What is packed as asked stays as it is, all else is quantized."""
    kept = set(same)
    formats = {name: held.packing if name in kept else fitting[name] for name, held in source.items()}
    others = [name for name in source if name not in kept]
    return Plan(
        formats,
        kept=tuple(same),
        unfit=tuple(name for name in others if fitting[name] is None),
        requantized=tuple(name for name in others if source[name].quantized and fitting[name] is not None),
        quantized=tuple(name for name in others if not source[name].quantized and fitting[name] is not None),
    )


def _refuse_second(
    spec: ModelSpec, target: Target, source: Mapping[str, Held], same: list[str], label: str
) -> None:
    """Raises OptionError where most of what is quantized already is so otherwise than asked.

    A few exceptions (an embedding in more bits) make no other model of it and are kept.
    """
    sizes = {tensor.name: tensor.size for tensor in spec.tensors()}
    quantized = sum(sizes[name] for name, held in source.items() if held.quantized)
    if not quantized or not target.names_packing or 2 * sum(sizes[name] for name in same) >= quantized:
        return
    weights = Counter[str]()
    for name, held in source.items():
        if held.quantized:
            weights[str(held.packing or "a form MLX does not have")] += sizes[name]
    asked = target.recipe or str(target.base)
    raise OptionError(
        f"{label} is quantized already ({weights.most_common(1)[0][0]}) and quantizing it again as {asked} would lose "
        "much more; convert it without quantization options, start from the 16-bit model, or add --requantize"
    )


def _packed(source: Mapping[str, Held]) -> tuple[str, ...]:
    return tuple(name for name, held in source.items() if held.packing is not None)


def _expanded(source: Mapping[str, Held]) -> tuple[str, ...]:
    return tuple(name for name, held in source.items() if held.quantized and held.packing is None)
