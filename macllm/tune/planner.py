"""How a run fits into memory with the steps that were asked for, or a refusal that says how long rows could be."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from macllm.errors import MemoryLimitError
from macllm.tune import packing
from macllm.tune.memory import (
    Base,
    Beside,
    cheaper,
    generations,
    length_setting,
    limit_of,
    needed_bytes,
    usual_rows,
)
from macllm.tune.peak import Device, Rows
from macllm.tune.settings import Value
from macllm.units import size

_MULTIPLE = 32  # tokens; rows are as long as a multiple of them


@dataclass(frozen=True)
class Plan:
    """Settings that fit. ``notes`` are sentences: what was chosen and why, and what a step takes."""

    settings: Mapping[str, Value]
    needed_bytes: int
    limit_bytes: int
    notes: tuple[str, ...]


class NothingFits(MemoryLimitError):
    """``settings`` take the least of all that may be chosen, and still too much."""

    def __init__(self, told: str, settings: Mapping[str, Value]) -> None:
        super().__init__(told)
        self.settings = settings


def plan(
    base: Base,
    settings: Mapping[str, Value],
    limit: int,
    *,
    lengths: Sequence[int] = (),
    packs: bool = True,
    given: Collection[str] = (),
    device: Device | None = None,
    beside: Beside | None = None,
) -> Plan:
    """How a run of ``settings`` on ``base`` fits into ``limit`` bytes, what models may take here (0: not known).

    ``memory`` of the settings bounds it further. ``lengths`` are the tokens of the examples: rows that none of them
    fills take less; none: as long as they may be. ``packs``: several may share a row. ``beside`` as in
    :func:`macllm.tune.memory.needed_bytes`. Of ``given``, the settings that the user stated, none is chosen otherwise,
    except that ``batch_size`` rows may be computed in several batches of the same step. Raises NothingFits in one
    sentence, and OptionError for a ``memory`` that is no amount.
    """
    machine, limit = limit, limit_of(settings, limit)

    def needed(changed: Mapping[str, Value]) -> int:
        return needed_bytes(base, changed, machine, device, _rows(changed, lengths, packs), beside)

    first = needed(settings)
    tried = [dict(settings), *cheaper(settings, frozenset(given))]
    for changed in tried:
        takes = needed(changed)
        if limit <= 0 or takes <= limit:
            notes = _notes(settings, changed, first, takes, limit, base)
            return Plan(changed, takes, limit, notes)
    least = min(tried, key=needed)
    raise NothingFits(_refusal(least, needed, limit, needed(least)), least)


def _rows(settings: Mapping[str, Value], lengths: Sequence[int], packs: bool) -> Rows:
    """The largest batch there will be."""
    usual = usual_rows(settings)
    if not lengths:
        return usual
    longest = min(max(lengths), usual.length - usual.drawn) + usual.drawn
    count, length = min(usual.count, generations(settings) * len(lengths)), longest
    if packs:
        count, length = usual.count, usual.length
        if settings["pack"] == "auto":
            count, length = packing.shape(count, length, lengths)
        length = min(sum(lengths), length)
        count = min(count, -(-sum(lengths) // length))
    rounded = min(usual.length, -(-length // _MULTIPLE) * _MULTIPLE)
    return replace(usual, count=count, length=rounded, document=longest)


def _notes(
    before: Mapping[str, Value],
    after: Mapping[str, Value],
    first: int,
    takes: int,
    limit: int,
    base: Base,
) -> tuple[str, ...]:
    about = "about " if base.spec is None else ""
    notes = []
    if after["grad_checkpoint"] != before["grad_checkpoint"]:
        notes.append(
            f"activations are computed twice (grad_checkpoint): kept, a step would take {size(first)}"
        )
    if after["batch_size"] != before["batch_size"]:
        times = int(after["grad_accumulation_steps"])
        notes.append(
            f"a step's {int(before['batch_size']) * int(before['grad_accumulation_steps'])} rows are computed in "
            f"{times} batches of {after['batch_size']} (batch_size, grad_accumulation_steps): the step is the same"
        )
    if after["optimizer_bits"] != before["optimizer_bits"]:
        notes.append("what the optimizer remembers is kept in 8 bits (optimizer_bits)")
    of = f" of the {size(limit)} that may be taken" if limit > 0 else ""
    notes.append(f"a step takes {about}{size(takes)}{of}")
    return tuple(notes)


def _refusal(
    settings: Mapping[str, Value], needed: Callable[[Mapping[str, Value]], int], limit: int, takes: int
) -> str:
    """That nothing fits, and the longest rows or answers that would: by bisection, as bytes only grow with tokens."""
    name = length_setting(settings)
    low, high = 0, int(settings[name]) // _MULTIPLE
    while low < high:
        middle = (low + high + 1) // 2
        fits = needed({**settings, name: middle * _MULTIPLE}) <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    remedy = f"{name}={low * _MULTIPLE} would fit" if low else "choose a smaller base, or one with fewer bits"
    return (
        f"training takes at least {size(takes)} with {name}={settings[name]}, and only {size(limit)} may be taken; "
        f"{remedy}"
    )
