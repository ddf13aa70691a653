"""A family against its original: a tiny random model of each, and how far their logits are apart.

The original is the class of Hugging Face transformers where that is installed, else mlx-lm's. Only here, and only
when asked, is either imported for it; nothing is downloaded.
"""

import json
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten, tree_unflatten

from macllm.errors import ConfigError, InputError
from macllm.families import spec_from_config
from macllm.families.registry import FAMILIES
from macllm.families.tiny import SAME_AS, tiny_config
from macllm.nn.decoder import Decoder
from macllm.weights.companions import portable
from macllm.weights.model_files import ModelFiles, open_model
from macllm.weights.parameters import CheckpointParameters, Placement

TOLERANCE = 1e-4  # relative to the largest logit
TOKENS = 40  # of the prompt: longer than the tiny models' windows and original contexts

Array: TypeAlias = np.ndarray[Any, Any]

# Whose norms are stored less 1.
_LESS_ONE = {"gemma", "gemma2", "gemma3_text", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}
# Whose scores are what q's norm makes of them.
_UNSCALED = {"gemma3n_text", "gemma4_text"}


@dataclass(frozen=True)
class Parity:
    """The largest differences of logits, relative to the largest logit: the prompt at once, and token by token."""

    model_type: str
    reference: str
    whole: float
    stepwise: float

    @property
    def ok(self) -> bool:
        return max(self.whole, self.stepwise) < TOLERANCE


@dataclass(frozen=True)
class Original:
    """A tiny random float32 model in its original implementation, and the folder it was saved to."""

    name: str  # of the implementation, with its version
    folder: Path
    model: Any

    def logits(self, rows: list[list[int]]) -> Array:
        """Ids (B, L) to logits (B, L, V) in float32."""
        if isinstance(self.model, Module):
            return np.array(self.model(mx.array(rows)).astype(mx.float32))
        import torch

        with torch.no_grad():
            found: Array = self.model(torch.tensor(rows)).logits.numpy()
        return found


def check(model_type: str) -> Parity:
    """Compares a native family with its original. Raises InputError where it is none."""
    if model_type not in FAMILIES:
        raise InputError(
            f"model_type={model_type!r} has no native family; `macllm families` shows those that have one"
        )
    config = tiny_config(model_type)
    ids = random_tokens(TOKENS, config)
    with tempfile.TemporaryDirectory(prefix="macllm-parity-") as place:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # both report on saving
            original = write_original(config, Path(place) / "model")
        expected = original.logits([ids])
        model = build(open_model(original.folder))
        found = np.array(model(mx.array([ids])))
        caches = model.make_caches()
        steps = [model(mx.array([[token]]), caches) for token in ids]
        stepwise = np.array(mx.concatenate(steps, axis=1))
    return Parity(model_type, original.name, difference(found, expected), difference(stepwise, expected))


def build(files: ModelFiles) -> Decoder:
    """The native model in float32, its weights as they are stored."""
    placement = Placement(mx.float32)
    parameters = CheckpointParameters(files.spec, files.checkpoint(mx.float32), files.naming, placement)
    return Decoder(files.spec, parameters)


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def random_tokens(count: int, config: Mapping[str, Any], seed: int = 0) -> list[int]:
    """Random ids of a tiny model's vocabulary."""
    generator = Random(seed)
    return [generator.randrange(config["vocab_size"]) for _ in range(count)]


def write_original(config: Mapping[str, Any], folder: Path, seed: int = 0) -> Original:
    """A random model of the class that the architecture comes from, saved to ``folder``.

    Norms, biases and buffers are random too: ones and zeros would hide a missing one. Raises ConfigError where
    neither transformers nor mlx-lm knows the architecture.
    """
    model_type = config["model_type"]
    if find_spec("transformers") is not None and find_spec("torch") is not None:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        if SAME_AS.get(model_type, model_type) in CONFIG_MAPPING:
            return _of_transformers(config, folder, seed)
    return _of_mlx_lm(config, folder, seed)


def _of_transformers(config: Mapping[str, Any], folder: Path, seed: int) -> Original:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    values = deepcopy(dict(config))  # transformers writes into what it is given
    model_type = values.pop("model_type")
    made = AutoConfig.for_model(SAME_AS.get(model_type, model_type), **values)
    # falcon's eager attention adds ALiBi twice; what it takes by default does not
    made._attn_implementation = "sdpa" if model_type == "falcon" else "eager"
    builder: Any = AutoModelForCausalLM  # not annotated
    model = builder.from_config(made).to(torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _randomize(name, parameter, model_type)
        for name, buffer in model.named_buffers():
            _randomize_buffer(name, buffer)
    model.save_pretrained(folder)
    if model_type in SAME_AS:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": model_type}))
    return Original(f"transformers {version('transformers')}", folder, model)


def _randomize(name: str, parameter: Any, model_type: str) -> None:
    if name.endswith("A_log"):
        parameter.uniform_(-5.0, 1.0)  # states that forget within a few tokens, and ones that hardly do
    elif parameter.ndim > 1:
        parameter.normal_(0.0, 0.2)
    else:
        parameter.normal_(0.0 if "bias" in name or model_type in _LESS_ONE else 1.0, 0.3)
        if model_type in _UNSCALED and "q_norm" in name:
            parameter.mul_(0.25)


def _randomize_buffer(name: str, buffer: Any) -> None:
    if "bias" in name:  # of a router's choice
        buffer.normal_(0.0, 0.3)
    elif name.endswith(("act_fn.beta", "act_fn.eps")):
        buffer.sub_(0.2)
    elif name.endswith("layer_scalar"):
        buffer.uniform_(0.5, 1.5)


def _of_mlx_lm(config: Mapping[str, Any], folder: Path, seed: int) -> Original:
    from mlx_lm.utils import _get_classes, save_config, save_model

    try:
        model_class, args_class = _get_classes(dict(config))
    except ValueError:
        raise ConfigError(
            f"neither transformers nor mlx-lm can be asked about {config['model_type']!r} here; install transformers "
            "and PyTorch to check it"
        ) from None
    mx.random.seed(seed)
    stated = portable(config, spec_from_config(config))  # mlx-lm wants some keys that may be left out
    model = model_class(args_class.from_dict(deepcopy(stated)))
    leaves: Any = tree_flatten(model.parameters())
    model.update(tree_unflatten([(name, _random(name, array)) for name, array in leaves]))
    mx.eval(model.parameters())
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model)
    save_config(stated, folder / "config.json")
    return Original(f"mlx-lm {version('mlx-lm')}", folder, model)


def _random(name: str, array: mx.array) -> mx.array:
    vector = array.ndim == 1
    return mx.random.normal(array.shape, scale=0.3 if vector else 0.2) + (vector and "bias" not in name)
