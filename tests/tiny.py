"""Tiny random models of every native family, written to disk by their original implementation."""

import json
import pkgutil
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from macllm.nn.decoder import Decoder

BASE = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}
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

# What transformers has under another name only.
SAME_AS = {"mimo": "qwen2", "kimi_k2": "deepseek_v3", "minimax": "minimax_m2"}
# Whose norms are stored less 1.
_LESS_ONE = {"gemma", "gemma2", "gemma3_text", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}
# What transformers does not have: the original is mlx-lm's class.
ONLY_MLX_LM = {"rwkv7"}


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


def write_reference(variant: str, folder: Path, seed: int = 0, *, wide: bool = False) -> Any:
    """A random float32 model in transformers, saved to ``folder``; returns it in evaluation mode."""
    return write_model(config_of(variant, wide=wide), folder, seed)


def write_model(config: dict[str, Any], folder: Path, seed: int = 0) -> Any:
    """The same of any config, or in mlx-lm where transformers has no such model.

    Norms and biases are random too: ones and zeros would hide a missing one.
    """
    if config["model_type"] in ONLY_MLX_LM:
        return write_mlx_model(config, folder, seed)

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    values = deepcopy(config)  # transformers writes into what it is given
    from_zero = config["model_type"] in _LESS_ONE
    unscaled = config["model_type"] in (
        "gemma3n_text",
        "gemma4_text",
    )  # scores are what q's norm makes of them
    model_type = values.pop("model_type")
    original = AutoConfig.for_model(SAME_AS.get(model_type, model_type), **values)
    # falcon's eager attention adds ALiBi twice; what it takes by default does not
    original._attn_implementation = "sdpa" if config["model_type"] == "falcon" else "eager"
    model = AutoModelForCausalLM.from_config(original).to(torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.uniform_(
                    -5.0, 1.0
                )  # states that forget within a few tokens, and ones that hardly do
            elif parameter.ndim == 1:
                parameter.normal_(0.0 if "bias" in name or from_zero else 1.0, 0.3)
                if unscaled and "q_norm" in name:
                    parameter.mul_(0.25)
            else:
                parameter.normal_(0.0, 0.2)
        for name, buffer in model.named_buffers():
            if "bias" in name:  # of a router's choice
                buffer.normal_(0.0, 0.3)
            elif name.endswith(("act_fn.beta", "act_fn.eps")):
                buffer.add_(-0.3 * torch.rand(()))
            elif name.endswith("layer_scalar"):
                buffer.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    if model_type in SAME_AS:
        saved = read_config(folder) | {"model_type": model_type}
        (folder / "config.json").write_text(json.dumps(saved))
    return model


@dataclass(frozen=True)
class Reference:
    """A variant's original: the folder it was saved to, and the model in transformers."""

    folder: Path
    model: Any

    def logits(self, rows: list[list[int]]) -> "np.ndarray":
        """Ids (B, L) to logits (B, L, V) in float32."""
        import torch

        with torch.no_grad():
            result: np.ndarray = self.model(torch.tensor(rows)).logits.numpy()
        return result


@dataclass(frozen=True)
class MlxReference(Reference):
    """The same with the model in mlx-lm."""

    def logits(self, rows: list[list[int]]) -> "np.ndarray":
        import mlx.core as mx
        import numpy as np

        return np.array(self.model(mx.array(rows)))


def write_mlx_model(config: dict[str, Any], folder: Path, seed: int = 0) -> Any:
    """A random float32 model in mlx-lm, saved to ``folder``; returns it."""
    from importlib import import_module

    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.utils import save_config, save_model

    mx.random.seed(seed)
    original = import_module(f"mlx_lm.models.{config['model_type']}")
    model = original.Model(original.ModelArgs.from_dict(deepcopy(config)))

    def random(array: mx.array) -> mx.array:
        return mx.random.normal(
            array.shape, loc=float(array.ndim == 1), scale=0.3 if array.ndim == 1 else 0.2
        )

    model.update(tree_map(random, model.parameters()))
    save_model(folder, model)
    save_config(deepcopy(config), folder / "config.json")
    return model


@cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="macllm-tiny-")  # lives as long as this process


@cache
def reference(variant: str, *, wide: bool = False) -> Reference:
    """The variant's original, written once a run. Do not change the folder."""
    folder = Path(_scratch().name) / f"{variant}{'-wide' if wide else ''}"
    kind = MlxReference if config_of(variant)["model_type"] in ONLY_MLX_LM else Reference
    return kind(folder, write_reference(variant, folder, wide=wide))


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


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected value."""
    import numpy as np

    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def tokens(count: int, seed: int = 0) -> list[int]:
    """Random ids of the tiny vocabulary."""
    import random

    generator = random.Random(seed)
    return [generator.randrange(BASE["vocab_size"]) for _ in range(count)]


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def variants() -> list[str]:
    return list(VARIANTS)


def first_variants() -> list[str]:
    """One variant a family."""
    return list({config_of(variant)["model_type"]: variant for variant in reversed(variants())}.values())
