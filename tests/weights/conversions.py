"""What tests of conversions share: both readers' logits, and the tensors of a folder."""

import hashlib
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import tiny
from mlx.utils import tree_map

IDS = tiny.tokens(24, seed=7)


def mlx_lm_logits(folder: Path, ids: list[int] = IDS) -> np.ndarray:
    """What mlx-lm makes of a folder, as it reads it, computed in float32."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    floats = (mx.float16, mx.bfloat16)
    model.update(tree_map(lambda a: a.astype(mx.float32) if a.dtype in floats else a, model.parameters()))
    return np.array(model(mx.array([ids])).astype(mx.float32))


def macllm_logits(folder: Path, ids: list[int] = IDS) -> np.ndarray:
    """What macllm makes of a folder or a GGUF file, in float32."""
    return np.array(tiny.decoder(folder)(mx.array([ids])))


def tensors(folder: Path) -> dict[str, mx.array]:
    """Every array of a folder's files by stored name."""
    found: dict[str, mx.array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= mx.load(str(file))  # type: ignore[arg-type]
    return found


def same_tensors(first: dict[str, mx.array], second: dict[str, mx.array]) -> bool:
    """Whether names, types, shapes and every bit agree."""
    return first.keys() == second.keys() and all(
        array.dtype == second[name].dtype and bool(mx.array_equal(array, second[name], equal_nan=True))
        for name, array in first.items()
    )


def sha256(folder: Path) -> dict[str, str]:
    """A digest of every file of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def config(folder: Path) -> dict[str, Any]:
    return tiny.read_config(folder)
