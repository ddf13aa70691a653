"""Puts what was learned into a model's weights, and refuses where their precision would not hold it.

Four-bit weights are too coarse for most changes: what is written then is the base with other rounding errors. So each
tensor's change is compared with the one that was learned before anything is written.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from macllm.adapters.files import Adapter
from macllm.adapters.fused_source import FusedSource, Tally
from macllm.adapters.method import Method
from macllm.adapters.slot import read_learned
from macllm.errors import InputError, OptionError
from macllm.paths import free_bytes
from macllm.quantization import AFFINE_GROUPS, Quantization
from macllm.weights import convert
from macllm.weights.convert import Conversion, refuse_existing, write_source
from macllm.weights.model_files import open_model
from macllm.weights.plan import Plan, Target, decide
from macllm.weights.save import SYNC_BYTES

LEAST_COSINE = 0.95


@dataclass(frozen=True)
class Fidelity:
    """How one written tensor keeps its change: the cosine between the learned and the real one.

    ``relative``: the length of the learned change beside that of the tensor. ``packing``: None where it is plain.
    """

    name: str
    cosine: float
    relative: float
    packing: Quantization | None


@dataclass(frozen=True)
class Measured:
    """A changed tensor was looked at; nothing is written before all of them were."""

    tensor: Fidelity
    done: int
    total: int


@dataclass(frozen=True)
class Fusion:
    """A finished fusion; ``tensors`` are those that changed."""

    conversion: Conversion
    tensors: tuple[Fidelity, ...]

    @property
    def worst(self) -> Fidelity | None:
        """The one that keeps least of its change; None where nothing changed."""
        return min(self.tensors, key=lambda one: one.cosine, default=None)


Report = Callable[[Measured | convert.Event], None]


def ignore(event: Measured | convert.Event) -> None:
    """The report of a caller who does not want to know."""


def fuse(
    model: Path,
    adapter: Path,
    destination: Path,
    *,
    bits: int | None = None,
    dequantize: bool = False,
    force: bool = False,
    report: Report = ignore,
    sync_bytes: int = SYNC_BYTES,
    disk_free: Callable[[Path], int] = free_bytes,
) -> Fusion:
    """Writes the model of a folder or a GGUF file, with what is in the folder ``adapter`` in it, to a new folder.

    Matrices stay as they are packed, unless ``bits`` or ``dequantize`` say otherwise; with ``bits``, packed ones that
    did not change keep their codes. Interrupted, the same call goes on where it stopped. Raises OptionError where a
    tensor would keep less of its change than ``LEAST_COSINE`` and ``force`` does not allow it, else what
    :func:`macllm.adapters.slot.read_learned` and :func:`macllm.weights.convert.convert` raise.
    """
    destination = destination.absolute()
    refuse_existing(destination)
    files = open_model(model)
    if not files.native or files.plan.ternary is not None:
        raise InputError(
            f"{model}: only a model that macllm runs itself, and whose weights are not ternary, takes an adapter in; "
            "chat with --adapter instead, or fuse with the tool that trained it"
        )
    learned = read_learned(adapter, files.spec)
    content = learned.content
    if isinstance(content, Adapter) and not isinstance(content.method, Method):
        raise OptionError(
            f"{adapter}: what {content.method.kind} learns has no place in a model's weights; chat with --adapter"
        )
    source = FusedSource(files, Target(), learned=learned)
    source = replace(source, target=_target(source, bits, dequantize))
    plan = _plan(source)
    tensors = _measured(source, plan, report)
    worst = min(tensors, key=lambda one: one.cosine, default=None)
    if worst is not None and worst.cosine < LEAST_COSINE and not force:
        raise OptionError(_refusal(source, plan, tensors, worst))
    done = write_source(
        source, destination, report, keep=_kept(source), sync_bytes=sync_bytes, disk_free=disk_free
    )
    return Fusion(done, tensors)


def _target(source: FusedSource, bits: int | None, dequantize: bool) -> Target:
    """Groups stay as small as they are."""
    if bits is not None and dequantize:
        raise OptionError("bits and dequantize contradict each other; choose one of them")
    packings = [held.packing for held in source.held.values() if held.packing is not None]
    groups = Counter(one.group_size for one in packings if one.group_size in AFFINE_GROUPS)
    group = groups.most_common(1)[0][0] if bits is not None and groups else None
    return Target(bits=bits, group_size=group, requantize=bits is not None, dequantize=dequantize)


def _kept(source: FusedSource) -> tuple[str, ...]:
    """What did not change, of what is stored together all of it."""
    together = [{tensor.name for tensor in one.canonical} for one in source.target_naming.relations()]
    changed = {name for names in together if names & source.changed for name in names}
    return tuple(name for name in source.held if name not in changed)


def _plan(source: FusedSource) -> Plan:
    decided = decide(source.files.spec, source.target, source.held, source.checkpoint.label, _kept(source))
    return decided.with_whole(source.target_naming.relations())


def _measured(source: FusedSource, plan: Plan, report: Report) -> tuple[Fidelity, ...]:
    """Every tensor whose change is not zero."""
    relations = [
        one
        for one in source.target_naming.relations()
        if one.stored and not source.changed.isdisjoint(tensor.name for tensor in one.canonical)
    ]
    found = []
    for number, relation in enumerate(relations, 1):
        packing = plan.formats.get(relation.canonical[0].name)
        tensor = _fidelity(relation.stored[0], source.tally(relation, packing), packing)
        report(Measured(tensor, number, len(relations)))
        if tensor.relative > 0:
            found.append(tensor)
    return tuple(found)


def _fidelity(name: str, tally: Tally, packing: Quantization | None) -> Fidelity:
    return Fidelity(name, tally.cosine, tally.relative, packing)


def _refusal(source: FusedSource, plan: Plan, tensors: tuple[Fidelity, ...], worst: Fidelity) -> str:
    """What would be lost, and what would hold it."""
    few = sum(one.cosine < LEAST_COSINE for one in tensors)
    form = str(worst.packing) if worst.packing is not None else "its 16 bits"
    offers = []
    for option, target in (
        ("--bits 8", _target(source, 8, False)),
        ("--dequantize", _target(source, None, True)),
    ):
        kept = _cosine_in(replace(source, target=target), worst.name) if target != source.target else 0.0
        if kept > worst.cosine:
            offers.append(f"{option} would keep {kept:.2f}")
    hint = f"of that one {', '.join(offers)}; " if offers else ""
    return (
        f"{few} of {len(tensors)} changed tensors would keep less than {LEAST_COSINE:g} of what was learned (cosine of "
        f"wanted and real change), the least {worst.name.removesuffix('.weight')}, changed by "
        f"{worst.relative:.2g} of its length, with {worst.cosine:.2f} in {form}; "
        f"{hint}--force writes it all the same"
    )


def _cosine_in(source: FusedSource, name: str) -> float:
    relation = next(one for one in source.target_naming.relations() if name in one.stored)
    packing = _plan(source).formats.get(relation.canonical[0].name)
    return source.tally(relation, packing).cosine
