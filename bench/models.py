"""The models that are measured: a GGUF's weights as mlx-lm's folder, and tiny random ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.nn.stored import Dense
from macllm.spec.tensor import TensorSpec
from macllm.weights import names
from macllm.weights.companions import portable
from macllm.weights.convert import convert
from macllm.weights.model_files import ModelFiles
from macllm.weights.plan import Target


def write_mlx_folder(source: Path, folder: Path, dtype: str) -> None:
    """Writes the model of a GGUF as mlx-lm's folder: the same codes, scales and plain tensors in ``dtype``.

    A folder that is there is complete and left alone.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        convert(source, folder, Target(dtype=dtype))


def write_tiny_model(folder: Path, layers: int, width: int) -> None:
    """Writes a random float32 Llama without a tokenizer."""
    config = {
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    write_random_model(folder, config)


def write_random_model(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes a random float32 model without a tokenizer, in the form that mlx-lm reads and writes."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = ModelFiles(folder, config).spec
    mx.random.seed(0)
    weights: dict[str, mx.array] = {}
    for relation in names.hugging_face(spec, "mlx").relations():
        stored = relation.store([Dense(_random(tensor)) for tensor in relation.canonical])
        weights |= {name: one.array for name, one in zip(relation.stored, stored, strict=True)}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    text = json.dumps(portable(config, spec), indent=1)
    (folder / "config.json").write_text(text, encoding="utf-8")


def _random(tensor: TensorSpec) -> mx.array:
    """Numbers near 0, of a vector near 1."""
    return mx.random.normal(tensor.shape) * 0.05 + (len(tensor.shape) == 1)
