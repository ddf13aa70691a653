"""Caches on disk: a conversation that goes on after a restart without computing its past again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.cache import LayerCache

_FORMAT = "macllm-cache-1"


def save_caches(path: Path, caches: Sequence[LayerCache]) -> None:
    """Writes the caches to a safetensors file, beside it first and renamed when whole."""
    arrays: dict[str, mx.array] = {}
    numbers: list[dict[str, int]] = []
    for index, cache in enumerate(caches):
        held, counts = cache.content()
        arrays |= {f"{index}.{name}": array for name, array in held.items()}
        numbers.append(counts)
    if caches and caches[0].padding is not None:
        arrays["padding"] = caches[0].padding
    arrays["format"] = mx.zeros(1)  # a file of no tensors cannot be written
    beside = path.with_name(f"{path.name}.partial.safetensors")
    mx.save_safetensors(str(beside), arrays, {"format": _FORMAT, "caches": json.dumps(numbers)})
    beside.replace(path)


def load_caches(path: Path, caches: Sequence[LayerCache]) -> None:
    """Fills the empty caches of the same model. Raises CheckpointError where the file is no such caches."""
    try:
        loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
        arrays, metadata = loaded
        numbers = json.loads(metadata["caches"])
        if metadata["format"] != _FORMAT or len(numbers) != len(caches):
            raise ValueError("it is of another model or version")
        for index, (cache, counts) in enumerate(zip(caches, numbers, strict=True)):
            prefix = f"{index}."
            held = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
            cache.padding = arrays.get("padding")
            cache.restore(held, counts)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: these are not the caches of this model ({error}); delete the file"
        ) from None
