"""Writes a model of transformers as GGUF in float32, by the conventions of llama.cpp's own converter."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}


def architecture(config: Mapping[str, Any]) -> str:
    """``general.architecture`` of a config's file."""
    return gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config["model_type"]]]


@dataclass(frozen=True)
class Converter:
    """One model: its config in the form repositories carry, and its tensors by Hugging Face name."""

    config: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    def write(self, path: Path, keys: Mapping[str, Any]) -> None:
        """Writes the file; ``keys`` (a tokenizer's, say) are added to what the config says, None removes one."""
        writer = gguf.GGUFWriter(path, architecture(self.config))
        self._write_shape(writer)
        self._write_rope(writer)
        for key, value in keys.items():
            if value is None:
                del writer.kv_data[0][key]
                continue
            kind = gguf.GGUFValueType.get_type(value)
            if isinstance(value, int) and not isinstance(value, bool):
                kind = gguf.GGUFValueType.UINT32
            writer.add_key_value(key, value, kind)
        for name, values in self._converted():
            writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    @property
    def _head_dim(self) -> int:
        config = self.config
        return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]

    def _write_shape(self, writer: gguf.GGUFWriter) -> None:
        config, family = self.config, self.config["model_type"]
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"] or config["num_attention_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        if config.get("head_dim"):
            writer.add_key_length(self._head_dim)
            writer.add_value_length(self._head_dim)
        if family in ("llama", "mistral"):
            writer.add_vocab_size(config["vocab_size"])
            writer.add_rope_dimension_count(self._head_dim)
        if family == "gemma3_text":
            writer.add_sliding_window(config["sliding_window"])

    def _write_rope(self, writer: gguf.GGUFWriter) -> None:
        """Bases and scaling. Which layers slide is not written: readers know that of gemma3."""
        base = self.config.get("rope_theta", 1_000_000.0 if "gemma" in self.config["model_type"] else None)
        if base is not None:
            writer.add_rope_freq_base(base)
        if self.config.get("rope_local_base_freq") is not None:
            writer.add_rope_freq_base_swa(self.config["rope_local_base_freq"])
        scaling = self.config.get("rope_scaling") or {}
        kind = scaling.get("rope_type", scaling.get("type"))
        if kind in ("linear", "yarn"):
            writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
            writer.add_rope_scaling_factor(scaling["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])

    def _converted(self) -> Iterator[tuple[str, np.ndarray]]:
        config = self.config
        names = gguf.get_tensor_name_map(ARCHITECTURES[config["model_type"]], config["num_hidden_layers"])
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        for name, values in self.tensors.items():
            if name == "lm_head.weight" and config.get(
                "tie_word_embeddings", "gemma" in config["model_type"]
            ):
                continue  # the embedding again
            converted = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert converted is not None, name
            projection = name.split(".")[-2]
            if config["model_type"] in ("llama", "mistral") and projection in heads:
                values = _neighbours(values, heads[projection] or config["num_attention_heads"])
            elif "gemma" in config["model_type"] and name.endswith("norm.weight"):
                values = values + 1  # stored as the factor that it is
            yield converted, values
        scaling = config.get("rope_scaling") or {}
        if scaling.get("rope_type") == "llama3":
            yield "rope_freqs.weight", self._llama3_factors(**scaling)

    def _llama3_factors(
        self,
        factor: float,
        low_freq_factor: float,
        high_freq_factor: float,
        original_max_position_embeddings: int,
        rope_type: str,
    ) -> np.ndarray:
        """What each frequency is divided by: 1 to ``factor``, by how often it turns in the first context."""
        dims = self._head_dim
        frequencies = self.config["rope_theta"] ** -(np.arange(0, dims, 2) / dims)
        turns = original_max_position_embeddings * frequencies / (2 * np.pi)
        kept = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
        return 1 / (kept + (1 - kept) / factor)


def _neighbours(values: np.ndarray, heads: int) -> np.ndarray:
    """The rows of each head in the order 0, d/2, 1, d/2 + 1, ...: what is rotated together lies together."""
    order = np.arange(len(values)).reshape(heads, 2, -1).transpose(0, 2, 1).reshape(-1)
    return values[order]
