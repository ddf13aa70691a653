"""What full fine-tuning leaves, on disk as mlx-lm keeps it: the weights that learned, under a checkpoint's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.adapters.folder import CONFIG, read_config, read_tensors, save
from macllm.adapters.kept import WEIGHTS
from macllm.adapters.learnable import fully_learned
from macllm.errors import CheckpointError, ConfigError
from macllm.nn.assign import assign
from macllm.nn.decoder import Decoder
from macllm.nn.stored import Dense, Stored
from macllm.spec import ModelSpec
from macllm.weights.names import Naming, Reader, hugging_face


def write_full(folder: Path, model: Decoder, num_layers: int, extra: Mapping[str, Any] | None = None) -> None:
    """Writes the weights that ``Method("full", num_layers=...)`` lets learn, in the model's types.

    ``extra``: further keys of the config. Raises MacllmError where they cannot be written.
    """
    stored, learned = dict(model.tensors()), fully_learned(model.spec, num_layers)
    tensors: dict[str, mx.array] = {}
    for relation in hugging_face(model.spec, "mlx").relations():
        if learned.issuperset(tensor.name for tensor in relation.canonical):
            own = relation.store([stored[tensor.name] for tensor in relation.canonical])
            tensors |= {name: _array(one) for name, one in zip(relation.stored, own, strict=True)}
    config = {
        **(extra or {}),
        "fine_tune_type": "full",
        "num_layers": num_layers,
        "lora_parameters": None,
    }
    save(folder, WEIGHTS, tensors, config, {"format": "mlx"})


def apply_full(model: Decoder, folder: Path) -> None:
    """Puts the weights of a folder into the model that they were learned from.

    Raises ConfigError and CheckpointError: one sentence with the tensor and its shapes where they are of another.
    """
    put_full(model, read_full(folder, model.spec), folder / WEIGHTS)


def read_full(folder: Path, spec: ModelSpec) -> dict[str, mx.array]:
    """The weights of a folder by canonical name, for a model of this spec.

    Raises ConfigError and CheckpointError: one sentence with the tensor and its shapes where they are of another.
    """
    config = read_config(folder)
    kind = config.get("fine_tune_type")
    if kind != "full":
        raise ConfigError(f"{folder / CONFIG}: fine_tune_type={kind!r} is an adapter (expected 'full')")
    file = folder / WEIGHTS
    tensors = read_tensors(file)
    naming = hugging_face(spec, "mlx", tensors)
    _check(file, spec, naming, tensors)
    reader = Reader(naming, str(file), lambda name: Dense(tensors[name]))
    return {
        tensor.name: _array(reader.read(tensor.name))
        for relation in naming.relations()
        if relation.stored and all(name in tensors for name in relation.stored)
        for tensor in relation.canonical
    }


def put_full(model: Decoder, weights: Mapping[str, mx.array], file: Path) -> None:
    """Puts weights by canonical name in place of the model's own. Raises CheckpointError where those are packed.

    ``file``: where they come from, for the sentence.
    """
    try:
        assign(model, weights)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}; take the 16-bit model that the weights are of") from None


def _check(file: Path, spec: ModelSpec, naming: Naming, tensors: Mapping[str, mx.array]) -> None:
    unexpected = naming.unexpected(sorted(tensors))
    if unexpected:
        raise CheckpointError(
            f"{file}: {unexpected[0]} is a tensor that this model (family {spec.family!r}, {len(spec.layers)} layers) "
            "does not have; the weights belong to another base"
        )
    for relation in naming.relations():
        for name, expected in zip(relation.stored, relation.stored_shapes(), strict=True):
            if name in tensors and tuple(tensors[name].shape) != expected:
                raise CheckpointError(
                    f"{file}: {name} has shape {tuple(tensors[name].shape)} where this model asks for {expected}; "
                    "the weights belong to another base"
                )


def _array(stored: Stored) -> mx.array:
    assert isinstance(stored, Dense)  # only plain weights learn
    return stored.array
