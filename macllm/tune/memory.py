"""What a fine-tuning run will take of memory, before anything is loaded, and what would make it fit."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from macllm.errors import ConfigError, MacllmError, OptionError
from macllm.families import spec_from_config
from macllm.spec import ModelSpec
from macllm.tune.objectives.kinds import KINDS
from macllm.tune.peak import METAL, Device, Rows, Run, forward_bytes, held_weights
from macllm.tune.settings import DEFAULTS, Value
from macllm.units import size

Verdict: TypeAlias = Literal["fits", "tight", "too big", "unknown"]

TIGHT_SHARE = 0.85  # of the limit: beyond it other programs make the machine swap
_USUAL_TOKENS = 2048
_SHORTEST = {"max_seq_length": 256, "max_completion_length": 32}  # tokens; no remedy halves further
# Where only the size of the files is known: of a usual model, the part that grows with tokens and the part that
# does not, each as a share of the weights and bytes on top.
_GROWING, _FIXED = (0.3, 300_000_000), (0.05, 200_000_000)
_AMOUNT = re.compile(r"(\d+(?:[.,]\d+)?) *(k|m|g|t)(i?)b?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Base:
    """A base model as far as memory goes; ``spec`` is None where only the size of its files is known."""

    weight_bytes: int
    spec: ModelSpec | None = None
    why_no_spec: str = ""


@dataclass(frozen=True)
class Beside:
    """A model that is in memory beside the one that learns: while it learns, or (not ``stays``) before it alone."""

    base: Base
    stays: bool


@dataclass(frozen=True)
class Estimate:
    """Bytes against a limit. ``remedy`` is what would make it fit; empty where it does, or nothing would."""

    verdict: Verdict
    needed_bytes: int
    limit_bytes: int
    sentence: str
    remedy: Mapping[str, Value]


def read_base(path: Path) -> Base:
    """The base at ``path``: a folder with config.json, or a .gguf file. Raises ConfigError where it is neither."""
    if path.is_file():
        return Base(path.stat().st_size, why_no_spec="a GGUF file is judged by its size alone")
    files = list(path.glob("*.safetensors")) or list(path.glob("*.gguf"))
    if not files:
        raise ConfigError(f"{path}: there are no weights in this folder; choose another base")
    weights = sum(file.stat().st_size for file in files)
    config = path / "config.json"
    if not config.is_file():
        return Base(weights, why_no_spec="a GGUF file is judged by its size alone")
    try:
        values: Any = json.loads(config.read_text(encoding="utf-8"))
        return Base(weights, spec_from_config(values, str(config)))
    except MacllmError:
        return Base(weights, why_no_spec="this kind of model is judged by its size alone")
    except (ValueError, OSError, AttributeError):
        raise ConfigError(f"{config}: this is not valid JSON; download the model again") from None


def parse_memory(text: str) -> int:
    """Bytes of what a person wrote: ``12GB``, ``800 MB``, ``1.5 GiB``. Raises OptionError."""
    found = _AMOUNT.fullmatch(text.strip())
    amount = float(found[1].replace(",", ".")) if found is not None else 0.0
    if found is None or amount <= 0:
        raise OptionError(f"memory={text!r} is not possible (expected an amount such as 12GB or 800MB)")
    return int(amount * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()])


def limit_of(settings: Mapping[str, Value], machine: int) -> int:
    """What may be taken: ``memory`` of the settings, or what models may take on the machine, if that is less."""
    stated = settings.get("memory")
    if stated is None:
        return machine
    return min(parse_memory(str(stated)), machine) if machine > 0 else parse_memory(str(stated))


def usual_rows(settings: Mapping[str, Value]) -> Rows:
    """Rows as long as they may be: two for each where two answers are compared, and as many as the model writes."""
    name = str(settings["objective"])
    count = int(settings["batch_size"]) * generations(settings)
    if KINDS[name].schemas == ("preference",):
        count *= 2
    writes = name == "grpo" or (name == "distill" and float(settings["on_policy"]) > 0)
    drawn = int(settings["max_completion_length"]) if writes else 0
    length = int(settings["max_seq_length"]) + drawn
    return Rows(count, length, length, drawn)


def length_setting(settings: Mapping[str, Value]) -> str:
    """The setting that a run takes less by: of the rows, or of the answers that the model writes itself."""
    return "max_completion_length" if usual_rows(settings).drawn else "max_seq_length"


def generations(settings: Mapping[str, Value]) -> int:
    """Rows that the model makes of one."""
    return int(settings["num_generations"]) if settings["objective"] == "grpo" else 1


def needed_bytes(
    base: Base,
    settings: Mapping[str, Value],
    limit: int = 0,
    device: Device | None = None,
    rows: Rows | None = None,
    beside: Beside | None = None,
) -> int:
    """Peak bytes of a run: ``rows`` (the longest possible) through the base and what learns, with a model ``beside``.

    ``limit``, the machine's, decides on CPU whether packed weights are expanded. ``device``: this machine's usual one.
    """
    rows = rows if rows is not None else usual_rows(settings)
    if base.spec is None:
        growing, fixed = (int(share * base.weight_bytes) + plus for share, plus in (_GROWING, _FIXED))
        kept = 1 if settings["grad_checkpoint"] else 3
        return base.weight_bytes + fixed + growing * kept * rows.tokens // _USUAL_TOKENS
    device = device if device is not None else Device.here()
    weights, packed = held_weights(base.spec, base.weight_bytes, limit, device)
    peak = Run(base.spec, weights, packed, settings, device).peak(rows).total
    if beside is None:
        return peak
    asked = beside.base.weight_bytes
    if (spec := beside.base.spec) is not None:
        asked = held_weights(spec, asked, limit, device)[0] + forward_bytes(spec, rows, device)
    return peak + asked if beside.stays else max(peak, weights + asked)


def least_bytes(spec: ModelSpec, weights: int) -> int:
    """Peak bytes on a Mac's GPU of a run of usual settings with one row at a time and activations computed twice.

    That is what a run with little memory is made to take, before averages in 8 bits or shorter rows. ``weights``:
    their bytes as they are stored.
    """
    settings = {**DEFAULTS, "batch_size": 1, "grad_checkpoint": True}
    return needed_bytes(Base(weights, spec), settings, device=METAL)


def estimate(
    base: Base,
    settings: Mapping[str, Value],
    limit: int,
    device: Device | None = None,
    longest: int = 0,
) -> Estimate:
    """The run as it is set against what models may take here; ``limit`` 0 where the machine is not known yet.

    ``longest``: tokens that no row has more of (0: not known). Raises OptionError for settings that cannot be.
    """
    machine, limit = limit, limit_of(settings, limit)

    def takes_of(changed: Mapping[str, Value]) -> int:
        rows = usual_rows(changed)
        if longest and changed["pack"] != "yes":
            length = min(rows.length, longest + rows.drawn)
            rows = replace(rows, length=length, document=length)
        return needed_bytes(base, changed, machine, device, rows)

    needed = takes_of(settings)
    about = "about " if base.spec is None else ""
    alone = f" ({base.why_no_spec})" if base.spec is None else ""
    if limit <= 0:
        return Estimate("unknown", needed, 0, f"Training takes {about}{size(needed)}{alone}.", {})
    whose = "here" if settings.get("memory") is None else "by memory"
    takes = f"training takes {about}{size(needed)}, and models may take {size(limit)} {whose}{alone}"
    if needed <= TIGHT_SHARE * limit:
        return Estimate("fits", needed, limit, f"Fits: {takes}.", {})
    wanted = limit if needed > limit else int(TIGHT_SHARE * limit)
    remedy = _remedy(settings, lambda changed: takes_of(changed) <= wanted)
    told = ", ".join(f"{name} {_told(value)}" for name, value in remedy.items())
    if needed <= limit:
        more = f" More room: {told}." if remedy else ""
        return Estimate("tight", needed, limit, f"Tight: {takes}.{more}", remedy)
    more = f"It would fit with {told}." if remedy else "Choose a smaller base, or one with fewer bits."
    return Estimate("too big", needed, limit, f"Does not fit: {takes}. {more}", remedy)


def _remedy(
    settings: Mapping[str, Value], fits: Callable[[Mapping[str, Value]], bool]
) -> Mapping[str, Value]:
    """The change of least cost that fits: the step as it is by other means, and then shorter rows."""
    changes: dict[str, Value] = {}
    for changed in cheaper(settings, frozenset()):
        changes = {name: changed[name] for name in changed if changed[name] != settings[name]}
        if fits(changed):
            return changes
    changed, name = {**settings, **changes}, length_setting(settings)
    while int(changed[name]) > _SHORTEST[name]:
        changed[name] = int(changed[name]) // 2
        if fits(changed):
            return {**changes, name: changed[name]}
    return {}


def cheaper(settings: Mapping[str, Value], fixed: frozenset[str]) -> list[dict[str, Value]]:
    """The settings with ever less memory and the same steps, in the order of what it costs; none of ``fixed`` changes.

    Activations computed twice cost a third of the time. Fewer rows at once, whose batches are accumulated, cost as
    much as the machine was quicker with many. Averages in 8 bits are less exact.
    """
    found: list[dict[str, Value]] = []
    now = dict(settings)
    if not now["grad_checkpoint"] and "grad_checkpoint" not in fixed:
        now = {**now, "grad_checkpoint": True}
        found.append(now)
    rows, batches = int(now["batch_size"]), int(now["grad_accumulation_steps"])
    for fewer in range(rows - 1, 0, -1):
        if rows % fewer == 0:
            now = {**now, "batch_size": fewer, "grad_accumulation_steps": batches * (rows // fewer)}
            found.append(now)
    packable = now["optimizer"] != "adafactor" and now["optimizer_bits"] != "8"
    if packable and "optimizer_bits" not in fixed:
        found.append({**now, "optimizer_bits": "8"})
    return found


def _told(value: Value) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
