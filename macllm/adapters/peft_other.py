"""PEFT's files of IA3 (``IA3Config``) and prompt tuning (``PromptTuningConfig``).

IA3 has ``ia3_l`` beside a checkpoint's modules: (O, 1), or (1, I) for its ``feedforward_modules``. A prompt is one
tensor, ``prompt_embeddings`` (P, D).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.adapters import peft
from macllm.adapters.folder import CONFIG, read_tensors, save
from macllm.adapters.insert import scales_inputs
from macllm.adapters.learnable import matrices
from macllm.adapters.method import Other, Scalings, Virtual
from macllm.adapters.names import AdapterNames, Place
from macllm.adapters.other_files import checked
from macllm.adapters.shapes import learned_shapes
from macllm.errors import CheckpointError, ConfigError, OptionError
from macllm.nn.adapted import Factors
from macllm.nn.virtual import PLACE
from macllm.spec import ModelSpec
from macllm.spec.names import Scaled

KINDS = ("IA3", "PROMPT_TUNING")
_PREFIX, _NUMBERS, _EMBEDDINGS = "base_model.model.", ".ia3_l", "prompt_embeddings"


def write_other_peft(
    folder: Path,
    file: str,
    spec: ModelSpec,
    method: Other,
    tensors: Mapping[str, mx.array],
    base_model: str,
) -> None:
    """Writes PEFT's config and the weights ``file``.

    Raises OptionError for what PEFT has no format or no place for, MacllmError where it cannot be written.
    """
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base_model, "inference_mode": True}
    if isinstance(method, Scalings):
        stored, config = _ia3(spec, {name.removesuffix(_NUMBERS): one for name, one in tensors.items()})
        named = {f"{_PREFIX}{module}{_NUMBERS}": one for module, one in stored.items()}
        save(folder, file, named, {**common, **config}, {"format": "pt"})
        return
    if not isinstance(method, Virtual) or method.kind != "prompt":
        raise OptionError(f"what {method.kind} learns cannot be written in PEFT's format; keep macllm's own")
    _refuse_changed_embeddings(spec)
    config = {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": method.tokens,
        "token_dim": spec.dim,
        "num_transformer_submodules": 1,
        "num_layers": len(spec.layers),
        "prompt_tuning_init": "RANDOM",
    }
    named = {_EMBEDDINGS: tensors[f"{PLACE}.embeddings"]}
    save(folder, file, named, {**common, **config}, {"format": "pt"})


def read_other_peft(
    file: Path, spec: ModelSpec, config: Mapping[str, Any]
) -> tuple[Other, dict[str, mx.array]]:
    """The method and its tensors by canonical name. Raises ConfigError and CheckpointError in one sentence."""
    label = str(file.parent / CONFIG)
    tensors = read_tensors(file)
    if config["peft_type"] == "IA3":
        numbers = _read_ia3(file, spec, config, label, tensors)
        method: Other = Scalings(tuple(sorted(numbers)))
        named = {f"{name}{_NUMBERS}": one for name, one in numbers.items()}
        return method, checked(file, named, learned_shapes(spec, method))
    _refuse_changed_embeddings(spec)
    tokens = config.get("num_virtual_tokens")
    if type(tokens) is not int or tokens < 1:
        raise ConfigError(
            f"{label}: num_virtual_tokens={tokens!r} is not a whole number of at least 1; save the adapter again"
        )
    method = Virtual("prompt", tokens)
    named = {f"{PLACE}.embeddings" if name == _EMBEDDINGS else name: array for name, array in tensors.items()}
    return method, checked(file, named, learned_shapes(spec, method))


def _refuse_changed_embeddings(spec: ModelSpec) -> None:
    if spec.embed_scale is not None or spec.embed_norm is not None:
        raise OptionError(
            f"family {spec.family!r} changes embeddings before its layers, and PEFT's prompts stand before that; "
            "keep macllm's own format"
        )


def _ia3(spec: ModelSpec, numbers: Mapping[str, mx.array]) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Numbers by canonical name to those by stored module, and the keys of the config."""
    of_inputs = _of_inputs(spec)
    names = AdapterNames(spec, "hub")
    found: dict[str, mx.array] = {}
    feedforward = set[str]()
    left = set(numbers)
    for place in names.places:
        if left.isdisjoint(place.canonical) or _unfit(place):
            continue
        left -= set(place.canonical)
        if of_inputs & set(place.canonical):
            one = numbers[place.canonical[0]]
            each = [one] if one.ndim == 1 else list(one)
            found |= {module: row[None] for module, row in zip(place.modules, each, strict=True)}
            feedforward |= set(place.modules)
            continue
        whole = names.store(_as_lengths(spec, {name: numbers.get(name) for name in place.canonical}))[0]
        found |= {
            module: one.magnitude[..., None] for module, one in whole.items() if one.magnitude is not None
        }
    odd = sorted(left) + sorted(module for module, one in found.items() if one.ndim == 3)
    if odd:
        raise OptionError(
            f"{odd[0]} has numbers that PEFT's format has no place for; train with targets that leave it out, or "
            "keep macllm's own format"
        )
    modules = list(names.shapes())
    return found, {
        "peft_type": "IA3",
        "target_modules": peft.targets(found, modules),
        "feedforward_modules": peft.targets(feedforward, modules),
        "fan_in_fan_out": False,
        "init_ia3_weights": True,
        "modules_to_save": None,
    }


def _read_ia3(
    file: Path, spec: ModelSpec, config: Mapping[str, Any], label: str, tensors: Mapping[str, mx.array]
) -> dict[str, mx.array]:
    """Numbers by canonical name."""
    if config.get("modules_to_save"):
        raise ConfigError(
            f"{label}: modules_to_save={config['modules_to_save']!r} is not supported (expected None); "
            "train the adapter with IA3 alone"
        )
    stored = {
        name.removeprefix(_PREFIX).removesuffix(_NUMBERS): one.reshape(-1).astype(mx.float32)
        for name, one in tensors.items()
    }
    names, of_inputs, found = AdapterNames(spec, "hub", stored), _of_inputs(spec), dict[str, mx.array]()
    left = set(stored)
    for place in names.places:
        if left.isdisjoint(place.modules) or _unfit(place):
            continue
        missing = next((module for module in place.modules if module not in stored), None)
        if missing is not None:
            raise CheckpointError(
                f"{file}: {missing} has no numbers where others of its layer have them; save it again"
            )
        left -= set(place.modules)
        rows = [stored[module] for module in place.modules]
        if of_inputs & set(place.canonical):
            found[place.canonical[0]] = rows[0] if len(rows) == 1 else mx.stack(rows)
            continue
        for module, row, shape in zip(place.modules, rows, place.shapes, strict=True):
            if row.shape != (shape[-2],):
                raise CheckpointError(
                    f"{file}: {module}{_NUMBERS} has {row.size} numbers where this model asks for {shape[-2]}; "
                    "the adapter belongs to another base"
                )
        lengths = {
            module: Factors(mx.zeros((1, 1)), mx.zeros((1, row.size)), 1.0, row)
            for module, row in zip(place.modules, rows, strict=True)
        }
        found |= {
            name: one.magnitude for name, one in names.load(lengths).items() if one.magnitude is not None
        }
    if left:
        raise CheckpointError(
            f"{file}: {min(left)} is of a matrix that this model (family {spec.family!r}) has no place for; the "
            "adapter belongs to another base"
        )
    return found


def _as_lengths(spec: ModelSpec, numbers: Mapping[str, mx.array | None]) -> dict[str, Factors]:
    """Numbers of rows as what goes into stored matrices with the rows; ones where there are none."""
    shapes = {tensor.name.removesuffix(".weight"): tensor.shape for tensor in matrices(spec)}
    found = {}
    for name, given in numbers.items():
        *count, outputs, _ = shapes[name]
        own = mx.ones((*count, outputs)) if given is None else given
        found[name] = Factors(mx.zeros((*count, 1, 1)), mx.zeros((*count, 1, outputs)), 1.0, own)
    return found


def _of_inputs(spec: ModelSpec) -> set[str]:
    return {tensor.name.removesuffix(".weight") for tensor in matrices(spec) if scales_inputs(tensor)}


def _unfit(place: Place) -> bool:
    """Whether rows are multiplied on the way, which lengths are and numbers are not."""
    return any(isinstance(one, Scaled) for one in place.relation.operations)
