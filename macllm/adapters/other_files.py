"""Scalings, bottlenecks and virtual tokens on disk, in a layout of macllm's own.

The own layout has canonical names (``layers.0.mixer.k.ia3_l``) in ``adapters.safetensors``; in ``adapter_config.json``
``fine_tune_type`` names the method, and the key of that name has its settings.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.adapters.folder import CONFIG, read_tensors, save
from macllm.adapters.kept import WEIGHTS
from macllm.adapters.method import ALL_LAYERS, VIRTUAL, Bottleneck, Other, Scalings, Virtual
from macllm.adapters.shapes import learned_shapes
from macllm.errors import CheckpointError, ConfigError, OptionError
from macllm.spec import ModelSpec

_REMEDY = "save the adapter again"
OTHERS = ("ia3", "bottleneck", *VIRTUAL)


def write_other(
    folder: Path, method: Other, tensors: Mapping[str, mx.array], extra: Mapping[str, Any] | None = None
) -> None:
    """Writes the own layout; ``extra`` are further keys. Raises MacllmError where it cannot be written."""
    settings = {key: value for key, value in asdict(method).items() if key != "kind"}
    config = {**(extra or {}), "fine_tune_type": method.kind, method.kind: settings}
    save(folder, WEIGHTS, tensors, config, {})


def read_other(folder: Path, spec: ModelSpec, config: Mapping[str, Any]) -> tuple[Other, dict[str, mx.array]]:
    """The method and its tensors in float32.

    Raises ConfigError for settings that are none, CheckpointError with the tensor and its shapes where they are of
    another base.
    """
    method = _method(config, str(folder / CONFIG))
    try:
        expected = learned_shapes(spec, method)
    except OptionError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}; the adapter belongs to another base") from None
    file = folder / WEIGHTS
    return method, checked(file, read_tensors(file), expected)


def checked(
    file: Path, tensors: Mapping[str, mx.array], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, mx.array]:
    """Tensors of exactly these names and shapes, in float32. Raises CheckpointError."""
    for name in tensors:
        if name not in expected:
            raise CheckpointError(
                f"{file}: {name} is nothing that its method learns of this model; the adapter belongs to another base"
            )
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{file}: {name} is missing; {_REMEDY}, or take the base that it is of")
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(
                f"{file}: {name} has shape {tuple(tensors[name].shape)} where this model asks for {shape}; "
                "the adapter belongs to another base"
            )
    return {name: array.astype(mx.float32) for name, array in tensors.items()}


def _method(config: Mapping[str, Any], label: str) -> Other:
    kind = config.get("fine_tune_type")
    values = config.get(str(kind))
    if not isinstance(values, Mapping):
        raise ConfigError(f"{label}: {kind} is missing; {_REMEDY}")
    if kind == "ia3":
        return Scalings(_targets(values, label), _whole(values, "num_layers", label, ALL_LAYERS))
    if kind == "bottleneck":
        rank, layers = _whole(values, "rank", label, 1), _whole(values, "num_layers", label, ALL_LAYERS)
        return Bottleneck(rank, _targets(values, label), layers)
    return Virtual(next(one for one in VIRTUAL if one == kind), _whole(values, "tokens", label, 1))


def _targets(values: Mapping[str, Any], label: str) -> tuple[str, ...]:
    found = values.get("targets")
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{label}: targets={found!r} is no list of names; {_REMEDY}")
    return tuple(found)


def _whole(values: Mapping[str, Any], key: str, label: str, least: int) -> int:
    found = values.get(key)
    if type(found) is not int or found < least:
        raise ConfigError(f"{label}: {key}={found!r} is not a whole number of at least {least}; {_REMEDY}")
    return found
