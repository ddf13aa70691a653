"""Turns a GGUF file's metadata into the config that Hugging Face keeps for the same model.

The result is in the form repositories carry (``rope_theta``, ``rope_scaling``, ``sliding_window``), so that families,
mlx-lm and transformers read it alike. A key that could change what the model computes and is not understood is
refused. Numbers are float32 in the file: 1e-5 is stored as 9.99999974e-06 and given back as 1e-05.
"""

from collections.abc import Mapping
from typing import Any

import macllm.weights.gguf.architectures  # noqa: F401 - enters them
from macllm.errors import ConfigError
from macllm.weights.gguf.header import Config, Header, Tensor
from macllm.weights.gguf.registry import ARCHITECTURES


def hf_config(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str = "the GGUF file"
) -> Config:
    """The model's config. Raises ConfigError naming ``where``, the key and what is wrong with it."""
    name = metadata.get("general.architecture")
    if name is None:
        raise ConfigError(
            f"{where}: general.architecture is missing; download a current conversion of the model"
        )
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ConfigError(
            f"{where}: general.architecture={name!r} is not one of the {len(ARCHITECTURES)} that macllm "
            "reads; use the model's MLX or safetensors version"
        )
    header = Header(metadata, tensors, name, where)
    config = ARCHITECTURES[name].read(header) | _token_ids(metadata)
    header.refuse_unread()
    return config


def _token_ids(metadata: Mapping[str, Any]) -> Config:
    ids: Config = {}
    for name, key in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
        value = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if value is not None:
            ids[name] = value
    found = (metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
    ends = list(dict.fromkeys(value for value in found if value is not None))
    if ends:
        ids["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    return ids
