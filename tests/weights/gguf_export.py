"""Writes a model of transformers as GGUF the way our own description and names say it, in float32."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import mlx.core as mx
import numpy as np
from gguf_converter import add_key, tensors_of

from macllm.families import spec_from_config
from macllm.nn.stored import Dense, Stored
from macllm.spec import ModelSpec
from macllm.weights.gguf.metadata import describe
from macllm.weights.gguf.names import gguf_naming
from macllm.weights.names import hugging_face
from macllm.weights.safetensors import read_headers

Tensors: TypeAlias = dict[str, np.ndarray]


def export(
    config: Mapping[str, Any],
    folder: Path,
    path: Path,
    keys: Mapping[str, Any],
    layout: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> Path:
    """The model of a folder as a file, with further ``keys`` (of a tokenizer, say); ``layout`` may change tensors."""
    spec = spec_from_config(config)
    description = describe(spec)
    writer = gguf.GGUFWriter(path, description.architecture)
    for key, value in (description.keys | dict(keys)).items():
        if key != "general.architecture":
            add_key(writer, key, value)
    for name, values in layout(exported(spec, folder)).items():
        writer.add_tensor(name, values)
    for name, factors in description.factors.items():
        writer.add_tensor(name, np.array(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def exported(spec: ModelSpec, folder: Path) -> Tensors:
    """The tensors of a folder under GGUF's names, by way of the canonical ones."""
    tensors, canonical = tensors_of(folder), dict[str, Stored]()
    for relation in hugging_face(spec, read_headers(folder).form, tensors).relations():
        loaded = relation.load([Dense(mx.array(tensors[name])) for name in relation.stored])
        canonical |= {tensor.name: one for tensor, one in zip(relation.canonical, loaded, strict=True)}
    result = {}
    for relation in gguf_naming(spec, describe(spec).architecture).relations():
        stored = relation.store([canonical[tensor.name] for tensor in relation.canonical])
        result |= {
            name: np.array(one.array, np.float32)
            for name, one in zip(relation.stored, stored, strict=True)
            if isinstance(one, Dense)
        }
    return result
