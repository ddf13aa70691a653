"""Gemma: norms are stored with the 1 added, as they are here."""

import numpy as np

from macllm.spec import ModelSpec
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.standard import layer_types, standard

_ACTIVATION = "gelu_pytorch_tanh"
_GEMMA2_CAPS, _GEMMA2_WINDOW = (50.0, 30.0), 4096
_PATTERN, _LOCAL_BASE = 6, 10_000.0
_27B_LAYERS = {"gemma2": 46, "gemma3": 62}


def _write(spec: ModelSpec, keys: Metadata) -> Metadata:
    """Without the scale of the scores, which readers know, and of the embedding, which is its width's root."""
    return without(keys, "attention.scale", "embedding_scale")


def _write_gemma3(spec: ModelSpec, keys: Metadata) -> Metadata:
    keys = _write(spec, keys)
    if "attention.sliding_window" in keys:  # readers have a base of their own for these layers
        keys.setdefault("rope.freq_base_swa", keys["rope.freq_base"])
    return keys


@architecture("gemma", "gemma", write=_write)
def gemma(h: Header) -> Config:
    """Gemma 1."""
    return standard(h, "gemma", "GemmaForCausalLM") | {"hidden_activation": _ACTIVATION}


@architecture("gemma2", "gemma2", write=_write)
def gemma2(h: Header) -> Config:
    """Gemma 2: every other layer slides; files without the key have the window and the caps of all released ones."""
    config = standard(h, "gemma2", "Gemma2ForCausalLM")
    layers = config["num_hidden_layers"]
    return config | {
        "hidden_activation": _ACTIVATION,
        "query_pre_attn_scalar": _scalar(h, config),
        "attn_logit_softcapping": h.number("attn_logit_softcapping", _GEMMA2_CAPS[0]),
        "final_logit_softcapping": h.number("final_logit_softcapping", _GEMMA2_CAPS[1]),
        "sliding_window": h.integer("attention.sliding_window", _GEMMA2_WINDOW),
        "layer_types": layer_types(h, layers, 2),
    }


@architecture("gemma3", "gemma3_text", write=_write_gemma3)
def gemma3(h: Header) -> Config:
    """Gemma 3, text.

    Every sixth layer attends to everything, the others rotate with base 10000 and are never scaled, unless keys say
    otherwise.
    """
    config = standard(h, "gemma3_text", "Gemma3ForCausalLM")
    layers = config["num_hidden_layers"]
    config |= {
        "hidden_activation": _ACTIVATION,
        "query_pre_attn_scalar": _scalar(h, config),
        "rope_local_base_freq": h.number("rope.freq_base_swa", _LOCAL_BASE),
    }
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        config |= h.optional(key, key)
    pattern = h.get("attention.sliding_window_pattern")
    if not h.get("attention.sliding_window"):
        return config | {"layer_types": ["full_attention"] * layers}
    config["sliding_window"] = h.integer("attention.sliding_window")
    if isinstance(pattern, np.ndarray | bool):
        return config | {"layer_types": layer_types(h, layers)}
    # the key that mlx-lm reads
    return config | {"sliding_window_pattern": h.integer("attention.sliding_window_pattern", _PATTERN)}


def _scalar(h: Header, config: Config) -> int:
    """What scores are scaled by the root of: the head width, in the 27B models the model's width over the heads."""
    is_27b = config["num_hidden_layers"] == _27B_LAYERS[h.architecture]
    width: int = config["hidden_size"] // config["num_attention_heads"] if is_27b else config["head_dim"]
    return width
