"""What an adapter on disk says of itself, without its base and without MLX: format, method, rank, base, size."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from macllm.adapters.kept import CONFIG, WEIGHTS, folder, kept
from macllm.errors import CheckpointError, ConfigError

_PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class About:
    """An adapter. ``base`` is the model that its config names, empty where it names none."""

    name: str
    path: Path
    format: str  # mlx-lm, peft
    method: str
    rank: int | None  # None for weights of full fine-tuning
    scale: float | None  # what the product of the factors is multiplied by
    base: str
    size_bytes: int
    parameters: int
    tensors: Mapping[str, tuple[int, ...]]  # shapes as stored


def about(path: Path) -> About:
    """What the folder of an adapter holds. Raises ConfigError or CheckpointError where it is not whole."""
    config = _config(path / CONFIG)
    peft = "peft_type" in config
    file = path / (_PEFT_WEIGHTS if peft else WEIGHTS)
    shapes = _shapes(file)
    method, rank, scale = _peft(config) if peft else _mlx_lm(config)
    return About(
        name=path.name,
        path=path,
        format="peft" if peft else "mlx-lm",
        method=method,
        rank=rank,
        scale=scale,
        base=str(config.get("base_model_name_or_path" if peft else "model") or ""),
        size_bytes=file.stat().st_size,
        parameters=sum(map(prod, shapes.values())),
        tensors=shapes,
    )


def all_kept() -> tuple[list[About], list[str]]:
    """The adapters kept here, and a sentence for each that is not whole."""
    found, problems = [], []
    for name in kept():
        try:
            found.append(about(folder() / name))
        except (ConfigError, CheckpointError) as error:
            problems.append(str(error))
    return found, problems


def _peft(config: Mapping[str, Any]) -> tuple[str, int | None, float | None]:
    kind = str(config["peft_type"]).lower()
    marks = (("use_dora", "dora"), ("use_rslora", "rslora"))
    method = next((name for key, name in marks if config.get(key)), kind)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        return method, None, None
    return method, rank, alpha / (rank**0.5 if method == "rslora" else rank)


def _mlx_lm(config: Mapping[str, Any]) -> tuple[str, int | None, float | None]:
    method = str(config.get("fine_tune_type", "lora"))
    marks = (("use_rslora", "rslora"), ("use_qalora", "qalora"))
    method = next((name for key, name in marks if config.get(key)), method)
    values = config.get("lora_parameters") or {}
    rank, scale = values.get("rank"), values.get("scale")
    return (
        method,
        rank if isinstance(rank, int) else None,
        scale if isinstance(scale, int | float) else None,
    )


def _config(file: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: it cannot be read ({error}); save the adapter again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: this is not a JSON object; save the adapter again")
    return values


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """By tensor, from the header alone."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, file.stat().st_size)))
        return {
            name: tuple(entry["shape"]) for name, entry in sorted(header.items()) if name != "__metadata__"
        }
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: it cannot be read ({error}); save the adapter again") from None
