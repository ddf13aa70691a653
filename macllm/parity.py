"""A family against its original: a tiny random model of each, and how far their logits are apart.

The original is the class of Hugging Face transformers where that is installed, else mlx-lm's. Only here, and only
when asked, is either imported for it; nothing is downloaded.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
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
Logits: TypeAlias = Callable[[list[list[int]]], Array]


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


def check(model_type: str) -> Parity:
    """Compares a native family with its original. Raises InputError where it is none."""
    if model_type not in FAMILIES:
        raise InputError(
            f"model_type={model_type!r} has no native family; `macllm families` shows those that have one"
        )
    config = tiny_config(model_type)
    ids = random_tokens(TOKENS, config)
    with tempfile.TemporaryDirectory(prefix="macllm-parity-") as place:
        folder = Path(place) / "model"
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # both report on saving
            reference, original = _original(config, folder)
        expected = original([ids])
        model = build(open_model(folder))
        found = np.array(model(mx.array([ids])))
        caches = model.make_caches()
        steps = [model(mx.array([[token]]), caches) for token in ids]
        stepwise = np.array(mx.concatenate(steps, axis=1))
    return Parity(model_type, reference, difference(found, expected), difference(stepwise, expected))


def build(files: ModelFiles) -> Decoder:
    """The native model in float32, its weights as they are stored."""
    placement = Placement(mx.float32)
    parameters = CheckpointParameters(files.spec, files.checkpoint(mx.float32), files.naming, placement)
    return Decoder(files.spec, parameters)


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def random_tokens(count: int, config: Mapping[str, Any], seed: int = 0) -> list[int]:
    """Random ids of a tiny model's vocabulary."""
    generator = Random(seed)
    return [generator.randrange(config["vocab_size"]) for _ in range(count)]


def write_with_transformers(config: Mapping[str, Any], folder: Path, seed: int = 0) -> Any:
    """A random float32 model of transformers, saved to ``folder``; returns it in evaluation mode.

    Norms, biases and buffers are random too: ones and zeros would hide a missing one.
    """
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
            _randomize(name, parameter, from_zero="gemma" in model_type)
        for name, buffer in model.named_buffers():
            if "bias" in name:  # of a router's choice
                buffer.normal_(0.0, 0.3)
            elif name.endswith(("act_fn.beta", "act_fn.eps")):
                buffer.add_(-0.3 * torch.rand(()))
    model.save_pretrained(folder)
    if model_type in SAME_AS:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": model_type}))
    return model


def _randomize(name: str, parameter: Any, *, from_zero: bool) -> None:
    """``from_zero``: norms are stored less 1."""
    if name.endswith("A_log"):
        parameter.uniform_(-5.0, 1.0)  # states that forget within a few tokens, and ones that hardly do
    elif parameter.ndim == 1:
        parameter.normal_(0.0 if "bias" in name or from_zero else 1.0, 0.3)
    else:
        parameter.normal_(0.0, 0.2)


def _original(config: Mapping[str, Any], folder: Path) -> tuple[str, Logits]:
    """What the original is called, and its logits."""
    if find_spec("transformers") is not None and find_spec("torch") is not None:
        import torch
        import transformers

        try:
            model = write_with_transformers(config, folder)
        except ValueError as error:  # transformers does not know the architecture
            if "Unrecognized" not in str(error):
                raise
        else:

            def logits(rows: list[list[int]]) -> Array:
                with torch.no_grad():
                    found: Array = model(torch.tensor(rows)).logits.numpy()
                return found

            return f"transformers {transformers.__version__}", logits
    return _mlx_lm(config, folder)


def _mlx_lm(config: Mapping[str, Any], folder: Path, seed: int = 0) -> tuple[str, Logits]:
    """mlx-lm's class with random weights, saved to ``folder``."""
    from importlib.metadata import version

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
    model = model_class(args_class.from_dict(stated))
    leaves: Any = tree_flatten(model.parameters())
    random = [
        (name, mx.random.normal(array.shape, scale=0.2) + (array.ndim == 1 and "bias" not in name))
        for name, array in leaves
    ]
    model.update(tree_unflatten(random))
    mx.eval(model.parameters())
    folder.mkdir()
    save_model(folder, model)
    save_config(stated, folder / "config.json")

    def logits(rows: list[list[int]]) -> Array:
        found: Array = np.array(model(mx.array(rows)).astype(mx.float32))
        return found

    return f"mlx-lm {version('mlx-lm')}", logits
