"""Turns a GGUF file's metadata into the config that Hugging Face keeps for the same model.

Architectures: ``llama`` (Llama, Mistral, SmolLM2), ``qwen2``, ``qwen3``, ``gemma3`` (text). The result is in the
form repositories carry (``rope_theta``, ``rope_scaling``, ``sliding_window``), so that families, mlx-lm and
transformers read it alike. A key that could change what the model computes and is not understood is refused.

Facts about llama.cpp's conventions that the keys do not say:

- A file without ``output.weight`` ties the output to the embedding. The vocabulary is the rows of
  ``token_embd.weight``; ``<arch>.vocab_size`` is often missing.
- ``rope.scaling.factor`` without ``rope.scaling.type`` means linear scaling. Llama 3.1's scaling has no key: each
  frequency is divided by a factor in the tensor ``rope_freqs.weight``.
- gemma3: every sixth layer attends to everything, the others rotate with base 10000 and are never scaled,
  unless keys say otherwise; scores are scaled by the head width, in the 27B model (62 layers) by
  ``embedding_length / head_count``.
- ``llama`` files store the rows of ``attn_q`` and ``attn_k`` (and their biases) with the halves of each head
  interleaved, the other architectures do not; gemma3's norms are stored with the 1 already added. Names and
  these operations are in ``macllm.weights.names``.
- Numbers are float32: 1e-5 is stored as 9.99999974e-06 and given back as 1e-05.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from macllm.errors import ConfigError
from macllm.weights.gguf_file import GGUFTensor

Config = dict[str, Any]

# Keys below "<arch>." that say nothing about the maths, or repeat what tensors say.
_HARMLESS = {"vocab_size", "rope.scaling.finetuned", "tensor_data_layout", "pooling_type"}
# Llama 3.1, 3.2 and 3.3 all have these; only the factor differs (8 or 32).
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_CONTEXT = 1.0, 4.0, 8192
_GEMMA3_PATTERN, _GEMMA3_LOCAL_BASE, _GEMMA3_27B_LAYERS = 6, 10_000.0, 62
_DEFAULT_BASE = 10_000.0


def hf_config(
    metadata: Mapping[str, Any], tensors: Mapping[str, GGUFTensor], where: str = "the GGUF file"
) -> Config:
    """The model's config. Raises ConfigError naming ``where``, the key and what is wrong with it."""
    architecture = metadata.get("general.architecture")
    family = _FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if architecture is None:
        raise ConfigError(
            f"{where}: general.architecture is missing; download a current conversion of the model"
        )
    if family is None:
        raise ConfigError(
            f"{where}: general.architecture={architecture!r} is not supported (supported: "
            f"{', '.join(sorted(_FAMILIES))}); use the model's MLX or safetensors version"
        )
    keys = _Keys(metadata, architecture, where)
    config = _common(keys, tensors) | _token_ids(metadata)
    config |= family(keys, tensors, config)
    keys.refuse_unread()
    return config


class _Keys:
    """The keys of one architecture. Remembers what was read, so that the rest can be refused by name."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str, where: str) -> None:
        self._metadata = metadata
        self._prefix = f"{architecture}."
        self._read: set[str] = set()
        self._where = where

    def get(self, key: str) -> Any:
        """The value, or None. A list with one entry a layer counts as its value where all are the same."""
        self._read.add(key)
        value = self._metadata.get(self._prefix + key)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        value = default if value is None else value
        if value is None:
            raise self._missing(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(key, value, "a whole number above 0, the same for all layers")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        if value is None:
            if default is None:
                raise self._missing(key)
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.wrong(key, value, "a number above 0")
        return _shortest(value)

    def only(self, key: str, expected: Any) -> None:
        """A key that may be missing but not have another value."""
        value = self.get(key)
        if value is not None and value != expected:
            raise self.wrong(key, value, repr(expected))

    def wrong(self, key: str, value: Any, expected: str) -> ConfigError:
        value = value.tolist() if isinstance(value, np.ndarray) else value
        return ConfigError(
            f"{self._where}: {self._prefix}{key}={value!r} is not supported (expected {expected}); "
            "use the model's MLX or safetensors version"
        )

    def refuse_unread(self) -> None:
        """Raises ConfigError for a key of this architecture that nobody read and that is not 0 or false."""
        for name, value in self._metadata.items():
            key = name.removeprefix(self._prefix)
            if name == key or key in self._read or key in _HARMLESS:
                continue
            if bool(np.any(value)) if isinstance(value, np.ndarray) else value:
                raise self.wrong(key, value, "no such key")

    def _missing(self, key: str) -> ConfigError:
        return ConfigError(
            f"{self._where}: {self._prefix}{key} is missing; download a current conversion of the model"
        )

    def damaged(self, what: str) -> ConfigError:
        return ConfigError(f"{self._where}: {what}; download a current conversion of the model")


def _common(keys: _Keys, tensors: Mapping[str, GGUFTensor]) -> Config:
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise keys.damaged("tensor 'token_embd.weight' is missing or no matrix")
    dim, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", dim // heads or None)
    rope_dims = keys.integer("rope.dimension_count", head_dim)
    layers = keys.integer("block_count")
    if layers > len(tensors):  # before anything makes a list with an entry a layer
        raise keys.damaged(
            f"its metadata announces {layers} layers, its {len(tensors)} tensors are too few for that"
        )
    for key in ("attention.value_length", "attention.key_length_swa", "attention.value_length_swa"):
        keys.only(key, head_dim)
    keys.only("rope.dimension_count_swa", rope_dims)
    keys.only("attention.causal", True)
    config = {
        "vocab_size": embedding.shape[0],
        "hidden_size": dim,
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.number("rope.freq_base", _DEFAULT_BASE),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    if rope_dims != head_dim:
        config["partial_rotary_factor"] = rope_dims / head_dim
    scaling = _rope_scaling(keys, tensors, config)
    return config | ({"rope_scaling": scaling} if scaling is not None else {})


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


def _llama(keys: _Keys, tensors: Mapping[str, GGUFTensor], config: Config) -> Config:
    own: Config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
    window = _window(keys, config)
    if window is not None:  # Mistral 7B v0.1; Hugging Face's llama has no such key
        own |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}
    return own | _biases(tensors)


def _qwen2(keys: _Keys, tensors: Mapping[str, GGUFTensor], config: Config) -> Config:
    _no_window(keys, config)
    return {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu"}


def _qwen3(keys: _Keys, tensors: Mapping[str, GGUFTensor], config: Config) -> Config:
    _no_window(keys, config)
    own = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu"}
    return own | _biases(tensors)


def _gemma3(keys: _Keys, tensors: Mapping[str, GGUFTensor], config: Config) -> Config:
    layers = config["num_hidden_layers"]
    is_27b = layers == _GEMMA3_27B_LAYERS
    own: Config = {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": (
            config["hidden_size"] // config["num_attention_heads"] if is_27b else config["head_dim"]
        ),
        "rope_local_base_freq": keys.number("rope.freq_base_swa", _GEMMA3_LOCAL_BASE),
    }
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if keys.get(key):
            own[key] = keys.number(key)
    pattern = keys.get("attention.sliding_window_pattern")
    window = keys.get("attention.sliding_window")
    if not window:
        return own | {"layer_types": ["full_attention"] * layers}
    own["sliding_window"] = keys.integer("attention.sliding_window")
    if isinstance(pattern, np.ndarray | bool):
        sliding = pattern.tolist() if isinstance(pattern, np.ndarray) else [pattern] * layers
        return own | {"layer_types": ["sliding_attention" if each else "full_attention" for each in sliding]}
    return own | {"sliding_window_pattern": keys.integer("attention.sliding_window_pattern", _GEMMA3_PATTERN)}


_FAMILIES: dict[str, Callable[[_Keys, Mapping[str, GGUFTensor], Config], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3": _gemma3,
}


def _biases(tensors: Mapping[str, GGUFTensor]) -> Config:
    present = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
    return {key: True for key, name in present.items() if name in tensors}


def _window(keys: _Keys, config: Config) -> int | None:
    """The sliding window, where there is one that a prompt within the context can outgrow."""
    if not keys.get("attention.sliding_window"):
        return None
    window = keys.integer("attention.sliding_window")
    return window if window < config["max_position_embeddings"] else None


def _no_window(keys: _Keys, config: Config) -> None:
    window = _window(keys, config)
    if window is not None:
        raise keys.wrong("attention.sliding_window", window, "none for this architecture")


def _rope_scaling(keys: _Keys, tensors: Mapping[str, GGUFTensor], config: Config) -> Config | None:
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    kind = keys.get("rope.scaling.type")
    table = tensors.get("rope_freqs.weight")
    if table is not None:
        if kind not in (None, "none") or factor != 1.0:
            raise keys.wrong("rope.scaling.type", kind, "none beside tensor 'rope_freqs.weight'")
        return _table_scaling(keys, table, config)
    if kind == "yarn":
        return _yarn(keys, factor, config)
    if kind not in (None, "none", "linear"):
        raise keys.wrong("rope.scaling.type", kind, "'none', 'linear' or 'yarn'")
    keys.get("rope.scaling.original_context_length")  # linear scaling does not depend on it
    return None if kind == "none" or factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _yarn(keys: _Keys, factor: float, config: Config) -> Config:
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):
        keys.only(f"rope.scaling.{key}", 1.0)
    scaling = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": keys.integer(
            "rope.scaling.original_context_length", config["max_position_embeddings"]
        ),
    }
    for key in ("beta_fast", "beta_slow"):
        if keys.get(f"rope.scaling.yarn_{key}") is not None:
            scaling[key] = keys.number(f"rope.scaling.yarn_{key}")
    return scaling


def _table_scaling(keys: _Keys, table: GGUFTensor, config: Config) -> Config | None:
    """Llama 3.1's scaling where the stored factors are those it gives; else the factors themselves."""
    dims = int(config["head_dim"] * config.get("partial_rotary_factor", 1.0))
    if table.type_name != "F32" or table.shape != (dims // 2,):
        raise keys.damaged(
            f"tensor 'rope_freqs.weight' is {table.type_name} {table.shape}, not F32 ({dims // 2},)"
        )
    factors = table.data().view("<f4").reshape(-1).astype(np.float64)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise keys.damaged("tensor 'rope_freqs.weight' holds factors that are not above 0")
    if (factors == 1.0).all():
        return None
    factor = _shortest(float(factors.max()))
    if np.allclose(factors, _llama3_factors(factor, dims, config["rope_theta"]), rtol=1e-4):
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": _LLAMA3_LOW,
            "high_freq_factor": _LLAMA3_HIGH,
            "original_max_position_embeddings": _LLAMA3_CONTEXT,
        }
    return {"rope_type": "table", "factors": factors.tolist()}


def _llama3_factors(factor: float, dims: int, base: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What Llama 3.1's scaling divides each frequency by."""
    wavelengths = 2 * math.pi * base ** (np.arange(0, dims, 2) / dims)
    ramp = (_LLAMA3_CONTEXT / wavelengths - _LLAMA3_LOW) / (_LLAMA3_HIGH - _LLAMA3_LOW)
    kept = np.clip(ramp, 0.0, 1.0)  # 1: a short wave, left alone; 0: a long one, divided by the factor
    return np.asarray(1 / ((1 - kept) / factor + kept))


def _shortest(value: float) -> float:
    """A float32 as the decimal that was meant: 9.99999974e-06 is 1e-05."""
    return float(str(np.float32(value)))
