"""What a fine-tuning run will take of memory, before anything is loaded, and what would make it fit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from macllm import sizes
from macllm.adapters.method import ALL_LAYERS
from macllm.errors import ConfigError, MacllmError
from macllm.families import spec_from_config
from macllm.spec import ModelSpec
from macllm.tune.settings import Value
from macllm.units import size

Verdict: TypeAlias = Literal["fits", "tight", "too big", "unknown"]

TIGHT_SHARE = 0.85  # of the limit: beyond it other programs make the machine swap
_USUAL_TOKENS = 2048
# Where only the size of the files is known: of a usual model, the part that grows with tokens and the part that
# does not, each as a share of the weights and bytes on top.
_GROWING, _FIXED = (0.3, 300_000_000), (0.05, 200_000_000)


@dataclass(frozen=True)
class Base:
    """A base model as far as memory goes; ``spec`` is None where only the size of its files is known."""

    weight_bytes: int
    spec: ModelSpec | None = None
    why_no_spec: str = ""


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


def needed_bytes(base: Base, settings: Mapping[str, Value]) -> int:
    """Peak bytes of a run: ``batch_size`` rows of ``max_seq_length`` tokens through the base and its adapter."""
    tokens = int(settings["batch_size"]) * int(settings["max_seq_length"])
    if base.spec is None:
        growing, fixed = (int(share * base.weight_bytes) + plus for share, plus in (_GROWING, _FIXED))
        kept = 1 if settings["grad_checkpoint"] else 3
        return base.weight_bytes + fixed + growing * kept * tokens // _USUAL_TOKENS
    total = sizes.trainable_memory(base.spec, base.weight_bytes, tokens, int(settings["rank"]))
    if settings["grad_checkpoint"]:
        return total
    return total + _kept_activations(base.spec, tokens, int(settings["num_layers"]))


def estimate(base: Base, settings: Mapping[str, Value], limit: int) -> Estimate:
    """The run against what models may take here; ``limit`` 0 where the machine is not known yet."""
    needed = needed_bytes(base, settings)
    about = "about " if base.spec is None else ""
    alone = f" ({base.why_no_spec})" if base.spec is None else ""
    if limit <= 0:
        return Estimate("unknown", needed, 0, f"Training takes {about}{size(needed)}{alone}.", {})
    takes = f"training takes {about}{size(needed)}, and models may take {size(limit)} here{alone}"
    if needed <= TIGHT_SHARE * limit:
        return Estimate("fits", needed, limit, f"Fits: {takes}.", {})
    remedy = _remedy(base, settings, limit if needed > limit else int(TIGHT_SHARE * limit))
    told = ", ".join(f"{name} {_told(value)}" for name, value in remedy.items())
    if needed <= limit:
        more = f" More room: {told}." if remedy else ""
        return Estimate("tight", needed, limit, f"Tight: {takes}.{more}", remedy)
    more = f"It would fit with {told}." if remedy else "Choose a smaller base, or one with fewer bits."
    return Estimate("too big", needed, limit, f"Does not fit: {takes}. {more}", remedy)


def _kept_activations(spec: ModelSpec, tokens: int, num_layers: int) -> int:
    """Bytes of the activations of the layers that gradients pass, all but the one counted already."""
    count = len(spec.layers) if num_layers == ALL_LAYERS else min(num_layers, len(spec.layers))
    kept = spec.layers[len(spec.layers) - count :]
    values = [sum(layer.working_values) + spec.dim * 4 for layer in kept]
    return (sum(values) - max(values)) * tokens * 4


def _remedy(base: Base, settings: Mapping[str, Value], limit: int) -> Mapping[str, Value]:
    """The smallest change that fits: checkpointing, then fewer rows at once, then shorter rows."""
    changed = dict(settings)
    found: dict[str, Value] = {}

    def change(name: str, value: Value) -> bool:
        changed[name] = found[name] = value
        return needed_bytes(base, changed) <= limit

    if not settings["grad_checkpoint"] and change("grad_checkpoint", True):
        return found
    while int(changed["batch_size"]) > 1:
        if change("batch_size", int(changed["batch_size"]) // 2):
            return found
    while int(changed["max_seq_length"]) > 256:
        if change("max_seq_length", int(changed["max_seq_length"]) // 2):
            return found
    return {}


def _told(value: Value) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
