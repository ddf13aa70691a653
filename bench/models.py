"""The models that are measured: a GGUF's weights as mlx-lm's folder, and a tiny random one."""

import json
from pathlib import Path

import mlx.core as mx

from macllm.weights import names
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
    folder.mkdir(parents=True, exist_ok=True)
    spec = ModelFiles(folder, config).spec
    naming = names.hugging_face(spec)
    mx.random.seed(0)
    weights = {
        naming.stored(tensor.name)[0]: mx.random.normal(tensor.shape) * 0.05 + (len(tensor.shape) == 1)
        for tensor in spec.tensors()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
