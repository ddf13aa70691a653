"""The models that are measured: a GGUF's weights as mlx-lm's folder, and a tiny random one."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from macllm.nn.stored import Packed
from macllm.quantization import Quantization
from macllm.spec import ModelSpec
from macllm.tokenizer.fast import FastTokenizer
from macllm.weights import names
from macllm.weights.model_files import ModelFiles, open_model

_DTYPES = {"float32": mx.float32, "float16": mx.float16}


def write_mlx_folder(source: Path, folder: Path, dtype: str) -> None:
    """Writes the model of a GGUF as mlx-lm's folder: the same codes, scales and plain tensors in ``dtype``.

    A folder that is complete is left alone: its config is written last.
    """
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    files = open_model(source)
    weights, formats = _tensors(files, _DTYPES[dtype])
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    _write_tokenizer(files, folder)
    config = {**files.config, "torch_dtype": dtype, "quantization": _quantization(formats)}
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


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
        naming.stored(tensor.name): mx.random.normal(tensor.shape) * 0.05 + (len(tensor.shape) == 1)
        for tensor in spec.tensors()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _tensors(files: ModelFiles, dtype: mx.Dtype) -> tuple[dict[str, mx.array], dict[str, Quantization]]:
    """Tensors under Hugging Face names, and the packing of each packed module."""
    spec: ModelSpec = files.spec
    checkpoint, ours, theirs = files.checkpoint(dtype), files.naming, names.hugging_face(spec)
    weights: dict[str, mx.array] = {}
    formats: dict[str, Quantization] = {}
    for tensor in spec.tensors():
        stored = ours.operation(tensor.name).load(checkpoint.read(ours.stored(tensor.name)))
        out = theirs.operation(tensor.name).store(stored)
        name = theirs.stored(tensor.name)
        if not isinstance(out, Packed):
            weights[name] = out.array.astype(dtype)
            continue
        module = name.removesuffix(".weight")
        formats[module] = out.quantization
        weights |= {name: out.weight, f"{module}.scales": out.scales.astype(dtype)}
        if out.biases is not None:
            weights[f"{module}.biases"] = out.biases.astype(dtype)
    return weights, formats


def _quantization(formats: dict[str, Quantization]) -> dict[str, Any]:
    """mlx-lm's entry: the commonest packing for all, and the modules that differ by path."""
    packings = list(formats.values())
    common = max(packings, key=packings.count)
    entry: dict[str, Any] = {"group_size": common.group_size, "bits": common.bits}
    for module, packing in formats.items():
        if packing != common:
            entry[module] = {"group_size": packing.group_size, "bits": packing.bits}
    return entry


def _write_tokenizer(files: ModelFiles, folder: Path) -> None:
    """mlx-lm's command starts by reading a tokenizer; ours becomes the file that it reads."""
    tokenizer = files.tokenizer()
    if not isinstance(tokenizer, FastTokenizer):
        return  # a SentencePiece model: the row about process start has no peer then
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": tokenizer.profile.templates.get("default"),
        "eos_token": tokenizer.profile.special_tokens.get("eos_token"),
        "bos_token": tokenizer.profile.special_tokens.get("bos_token"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
