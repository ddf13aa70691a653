"""Writes a model of transformers as GGUF in float32, by the conventions of llama.cpp's own converter.

What is common is here: names by the format's own tables, keys by the many names that configs have for them. What the
converter does for one family alone is in ``gguf_conversions``.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from macllm.weights.safetensors import read_headers

Values = np.ndarray
CONVERSIONS: dict[str, tuple[gguf.MODEL_ARCH, "Callable[[Conversion], None]"]] = {}
# GGUF's key: the words for it in configs
SIZES = {
    "block_count": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "context_length": ("max_position_embeddings", "n_ctx", "n_positions", "max_seq_len"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads", "n_head", "n_heads"),
    "attention.head_count_kv": ("num_key_value_heads", "n_kv_heads"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_group_count": ("n_group",),
    "expert_group_used_count": ("topk_group",),
}
GATING = {"softmax": 1, "sigmoid": 2}


def converts(
    architecture: gguf.MODEL_ARCH, *model_types: str
) -> "Callable[[Callable[[Conversion], None]], Callable[[Conversion], None]]":
    """Enters what is done for some model types beside what is done for all."""

    def enter(change: "Callable[[Conversion], None]") -> "Callable[[Conversion], None]":
        CONVERSIONS.update(dict.fromkeys(model_types, (architecture, change)))
        return change

    return enter


def architecture(config: Mapping[str, Any]) -> str:
    """``general.architecture`` of a config's file."""
    return gguf.MODEL_ARCH_NAMES[_entry(config)[0]]


def _entry(config: Mapping[str, Any]) -> "tuple[gguf.MODEL_ARCH, Callable[[Conversion], None]]":
    import gguf_conversions  # noqa: F401 - enters them

    return CONVERSIONS[config["model_type"]]


def tensors_of(folder: Path) -> dict[str, Values]:
    """The tensors of a folder that transformers wrote, by Hugging Face name."""
    from safetensors.numpy import load_file

    assert read_headers(folder)
    files = sorted(folder.glob("*.safetensors"))
    return {name: values for file in files for name, values in load_file(file).items()}


class Conversion:
    """One model on its way: ``keys`` without their prefix, ``tensors`` by Hugging Face name until they are named."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Values]) -> None:
        """``config`` as transformers saves it or as repositories carry it."""
        self.config = config
        self.tensors = dict(tensors)
        self.keys: dict[str, Any] = {}
        self.named: dict[str, Values] = {}  # tensors under GGUF names already
        self.architecture, change = _entry(config)
        self.layers: int = self.find("num_hidden_layers", "n_layer", "n_layers", default=0)
        self.general()
        change(self)

    # --- reading

    def find(self, *names: str, default: Any = None) -> Any:
        """The first of several keys that the config has."""
        return next((self.config[name] for name in names if self.config.get(name) is not None), default)

    @property
    def heads(self) -> int:
        return self.find("num_attention_heads", "n_head", "n_heads")

    @property
    def kv_heads(self) -> int:
        return self.find("num_key_value_heads", default=self.heads)

    @property
    def head_dim(self) -> int:
        return self.find("head_dim", default=self.find("hidden_size", "n_embd", "d_model") // self.heads)

    @property
    def rope(self) -> Mapping[str, Any]:
        """The rotary parameters of the layers that see everything, in the newer form."""
        rope = self._ropes
        return rope.get("full_attention", rope)

    @property
    def _ropes(self) -> dict[str, Any]:
        rope = dict(self.config.get("rope_parameters") or self.config.get("rope_scaling") or {})
        if "full_attention" in rope or "sliding_attention" in rope:
            return rope
        rope.setdefault("rope_type", rope.get("type", "default"))
        for key in ("rope_theta", "partial_rotary_factor"):
            if self.config.get(key) is not None:
                rope.setdefault(key, self.config[key])
        if self.config.get("rope_local_base_freq") is not None:
            rope["sliding_attention"] = {"rope_theta": self.config["rope_local_base_freq"]}
        return rope

    # --- keys

    def general(self) -> None:
        """The keys of the converter's common part."""
        found = {key: self.find(*names) for key, names in SIZES.items()}
        self.keys |= {key: value for key, value in found.items() if value is not None}
        score = self.find("scoring_func", "score_function", "score_func")
        if score is not None:
            self.keys["expert_gating_func"] = GATING[score]
        self._general_rope()

    def _general_rope(self) -> None:
        rope = self.rope
        if rope.get("rope_theta") is not None:
            self.keys["rope.freq_base"] = float(rope["rope_theta"])
        local = self._ropes.get("sliding_attention", {}).get("rope_theta")
        if local is not None:
            self.keys["rope.freq_base_swa"] = float(local)
        kind = rope.get("rope_type")
        if kind in ("linear", "yarn"):
            self.keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
        if kind == "yarn":
            context = rope["original_max_position_embeddings"]
            self.keys["rope.scaling.original_context_length"] = context
            words = {
                "yarn_attn_factor": "attention_factor",
                "yarn_beta_fast": "beta_fast",
                "yarn_beta_slow": "beta_slow",
            }
            self.keys |= {
                f"rope.scaling.{key}": float(rope[word])
                for key, word in words.items()
                if rope.get(word) is not None
            }
        if kind == "longrope":
            self.keys["rope.scaling.type"] = kind

    def only(self, *names: str) -> None:
        """Drops all keys but some: the converters of older families write few."""
        self.keys = {name: self.keys[name] for name in names if name in self.keys}

    def sliding_pattern(self) -> list[bool]:
        return [kind == "sliding_attention" for kind in self.config["layer_types"]]

    # --- tensors

    def named_like(self, end: str) -> list[str]:
        """The tensors whose names end so."""
        return [name for name in self.tensors if name.endswith(end)]

    def change(self, end: str, change: Callable[[Values], Values]) -> None:
        """Does something to all tensors whose names end so."""
        for name in self.named_like(end):
            self.tensors[name] = change(self.tensors[name])

    def rename(self, old: str, new: str) -> None:
        self.tensors = {name.replace(old, new): values for name, values in self.tensors.items()}

    def drop(self, *ends: str) -> None:
        self.tensors = {name: values for name, values in self.tensors.items() if not name.endswith(ends)}

    def permute(self) -> None:
        """q and k with the halves of each head interleaved, for a rotation that turns neighbours."""
        for projection, heads in (("q_proj", self.heads), ("k_proj", self.kv_heads)):
            for kind in ("weight", "bias"):
                self.change(f".{projection}.{kind}", lambda values, n=heads: neighbours(values, n))

    def stack_experts(self, stem: str, words: Mapping[str, str]) -> None:
        """Matrices ``stem.E.word.weight`` of a layer as one stack, under the words of ``mlp.experts``."""
        for layer in range(self.layers):
            place = f"model.layers.{layer}."
            for word, merged in words.items():
                count = len(
                    [n for n in self.tensors if n.startswith(place + stem) and f".{word}.weight" in n]
                )
                parts = [self.tensors.pop(f"{place}{stem}.{e}.{word}.weight") for e in range(count)]
                if parts:
                    self.tensors[f"{place}mlp.experts.{merged}.weight"] = np.stack(parts)

    # --- writing

    def converted(self) -> Iterator[tuple[str, Values]]:
        """The tensors under the format's names."""
        names = gguf.get_tensor_name_map(self.architecture, self.layers)
        tied = self.config.get("tie_word_embeddings", "gemma" in self.config["model_type"])
        for name, values in self.tensors.items():
            if name.endswith("lm_head.weight") and tied:
                continue  # the embedding again
            converted = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert converted is not None, name
            yield converted, values
        yield from self.named.items()
        if self.rope.get("rope_type") == "llama3":
            yield "rope_freqs.weight", self._llama3_factors()

    def write(self, path: Path, keys: Mapping[str, Any] | None = None) -> Path:
        """Writes the file; ``keys`` (a tokenizer's, say) are added to what the config says, None removes one."""
        name = gguf.MODEL_ARCH_NAMES[self.architecture]
        writer = gguf.GGUFWriter(path, name)
        for key, value in (
            {f"{name}.{key}": value for key, value in self.keys.items()} | dict(keys or {})
        ).items():
            if value is not None:
                add_key(writer, key, value)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        for tensor, values in self.converted():
            writer.add_tensor(tensor, np.ascontiguousarray(values, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _llama3_factors(self) -> Values:
        """What each frequency is divided by: 1 to ``factor``, by how often it turns in the first context."""
        rope, dims = self.rope, self.head_dim
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        frequencies = rope["rope_theta"] ** -(np.arange(0, dims, 2) / dims)
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return 1 / (kept + (1 - kept) / rope["factor"])


def add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Whole numbers as uint32, others as float32."""
    kind = gguf.GGUFValueType.get_type(value)
    if isinstance(value, int) and not isinstance(value, bool):
        kind = gguf.GGUFValueType.UINT32
    writer.add_key_value(key, value, kind)


def neighbours(values: Values, heads: int) -> Values:
    """The rows of each head in the order 0, d/2, 1, d/2 + 1, ...: what is rotated together lies together."""
    order = np.arange(len(values)).reshape(heads, 2, -1).transpose(0, 2, 1).reshape(-1)
    return values[order]
