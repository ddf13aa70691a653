"""Tiny random models of every native family, written to disk by their original implementation."""

import json
import pkgutil
import tempfile
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from macllm.families.tiny import base_config
from macllm.parity import Original, difference, random_tokens, write_original

if TYPE_CHECKING:
    from macllm.nn.decoder import Decoder

__all__ = ["Original", "difference", "write_original"]

BASE = base_config()
# What differs in the wide models, whose matrices have room for groups of up to 128 weights.
WIDE = {
    "rope_theta": 10_000.0,  # explicit: mlx-lm has another default for qwen2
    "hidden_size": 256,  # a square: mlx-lm rounds gemma's embedding scale, its root, to bfloat16
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 16,
}


def _modules() -> list[ModuleType]:
    """Every module in ``tests/variants``."""
    import variants as package

    return [import_module(f"variants.{found.name}") for found in pkgutil.iter_modules(package.__path__)]


# name -> (model_type, what differs from BASE), or a whole config where BASE's keys are not the family's
VARIANTS: dict[str, tuple[str, dict[str, Any]] | dict[str, Any]] = {
    name: variant for module in _modules() for name, variant in module.VARIANTS.items()
}
# Those that mlx-lm's class cannot load, or computes otherwise than the original, and why.
BEYOND_MLX_LM: dict[str, str] = {
    name: why for module in _modules() for name, why in getattr(module, "BEYOND_MLX_LM", {}).items()
}


def config_of(variant: str, *, wide: bool = False) -> dict[str, Any]:
    """The variant's config, in the form repositories carry."""
    found = VARIANTS[variant]
    if isinstance(found, dict):
        assert not wide, "a wide variant is made of BASE"
        return deepcopy(found)
    model_type, changes = found
    return {**BASE, "model_type": model_type, **changes, **(WIDE if wide else {})}


def write_model(config: dict[str, Any], folder: Path, seed: int = 0) -> Any:
    """A random float32 model in its original implementation, saved to ``folder``; returns it."""
    return write_original(config, folder, seed).model


@cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="macllm-tiny-")  # lives as long as this process


@cache
def reference(variant: str, *, wide: bool = False) -> Original:
    """The variant's original, written once a run. Do not change the folder."""
    folder = Path(_scratch().name) / f"{variant}{'-wide' if wide else ''}"
    return write_original(config_of(variant, wide=wide), folder)


def write_with_mlx_lm(
    variant: str, folder: Path, *, predicate: Any = None, dtype: str = "float32", **quantization: Any
) -> Any:
    """The wide variant, quantized and saved by mlx-lm; returns its model. No ``quantization``: plain."""
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.utils import load_model, quantize_model, save_config, save_model

    source = reference(variant, wide=True).folder
    config = config_of(variant, wide=True)
    model, _ = load_model(source, model_config=config)
    model.update(tree_map(lambda array: array.astype(getattr(mx, dtype)), model.parameters()))
    if quantization:
        settings = {"group_size": None, "bits": None, **quantization}
        model, config = quantize_model(model, config, quant_predicate=predicate, **settings)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    return model


def decoder(folder: Path, config: dict[str, Any] | None = None, **placement: Any) -> "Decoder":
    """The native model of a folder, in float32; ``config`` instead of the folder's own."""
    import mlx.core as mx

    from macllm.nn.decoder import Decoder
    from macllm.weights.model_files import ModelFiles, open_model
    from macllm.weights.parameters import CheckpointParameters, Placement

    files = ModelFiles(folder, config) if config is not None else open_model(folder)
    placed = Placement(placement.pop("dtype", mx.float32), **placement)
    parameters = CheckpointParameters(files.spec, files.checkpoint(placed.dtype), files.naming, placed)
    return Decoder(files.spec, parameters)


@cache
def native(variant: str) -> "Decoder":
    """The native model of a variant's original, built once a process: for tests that change no weight."""
    return decoder(reference(variant).folder)


def tokens(count: int, seed: int = 0) -> list[int]:
    """Random ids of the tiny vocabulary."""
    return random_tokens(count, BASE, seed)


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def variants() -> list[str]:
    return list(VARIANTS)


def variants_by_pace() -> list[Any]:
    """All variants as parameters: one a family in ``make test``, the others in ``make test-all``."""
    first = set(first_variants())
    return [
        variant if variant in first else pytest.param(variant, marks=pytest.mark.slow)
        for variant in variants()
    ]


def first_variants() -> list[str]:
    """One variant a family."""
    return list({config_of(variant)["model_type"]: variant for variant in reversed(variants())}.values())
