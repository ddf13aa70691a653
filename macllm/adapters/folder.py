"""The two files of a folder that something learned lies in, weights and config: written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.adapters.kept import CONFIG
from macllm.errors import CheckpointError, ConfigError, MacllmError

__all__ = ["CONFIG", "read_config", "read_tensors", "save"]


def save(
    folder: Path,
    name: str,
    tensors: Mapping[str, mx.array],
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Writes the weights ``name`` and the config; what was there stays until both are whole.

    Raises MacllmError where they cannot be written.
    """
    weights, settings = folder / f".partial-{name}", folder / f".partial-{CONFIG}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mx.save_safetensors(str(weights), dict(tensors), dict(metadata))
        settings.write_text(json.dumps(config, indent=4, sort_keys=True) + "\n", encoding="utf-8")
        weights.replace(folder / name)
        settings.replace(folder / CONFIG)
    except (OSError, RuntimeError) as error:
        for partial in (weights, settings):
            partial.unlink(missing_ok=True)
        raise MacllmError(
            f"{folder}: the adapter cannot be written ({error}); make room, or name another folder"
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """The config. Raises ConfigError where there is none, or it cannot be read."""
    file = folder / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder}: there is no {CONFIG}; name a folder that an adapter was saved in"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: it cannot be read ({error}); save the adapter again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: this is not a JSON object; save the adapter again")
    return values


def read_tensors(file: Path) -> dict[str, mx.array]:
    """The tensors in the order of their names, at least one. Raises CheckpointError where they cannot be read."""
    try:
        loaded = mx.load(str(file))
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(f"{file}: it cannot be read ({error}); save the adapter again") from None
    assert isinstance(loaded, dict)  # what a safetensors file gives
    if not loaded:
        raise CheckpointError(f"{file}: there is no tensor in it; save the adapter again")
    return dict(sorted(loaded.items()))
