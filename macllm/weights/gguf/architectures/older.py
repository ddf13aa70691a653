"""Families with LayerNorm: from before Llama, with learned positions or ALiBi; and OLMo, StableLM, StarCoder2."""

import math

from macllm.families.names import Table
from macllm.spec import Attention, ModelSpec
from macllm.spec.names import Entry
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import fused_first, paired_heads
from macllm.weights.gguf.registry import Metadata, architecture, one_window
from macllm.weights.gguf.rope import read_rope
from macllm.weights.gguf.standard import LAYER_NORM, biases, core, heads, standard

_STARCODER2_WINDOW = 4096
_ALIBI = 8.0  # the largest exponent of BLOOM's slopes


def _read(h: Header, model_type: str, model: str, names: dict[str, str]) -> Config:
    """What these families share, under their own names."""
    config = core(h)
    config |= heads(h, config["hidden_size"])
    h.only("attention.key_length", config["hidden_size"] // config["num_attention_heads"])
    h.only("attention.head_count_kv", config["num_attention_heads"])
    del config["head_dim"], config["num_key_value_heads"]
    config["layer_norm_epsilon"] = h.number(f"attention.{LAYER_NORM}")
    return {"model_type": model_type, "architectures": [model]} | {
        names.get(key, key): value for key, value in config.items()
    }


def largest_exponent(slopes: tuple[float, ...]) -> float:
    """ALiBi's largest exponent, from the slopes of the heads."""
    count = 1 << (len(slopes) - 1).bit_length()
    return -math.log2(slopes[0]) * (count if count == len(slopes) else count // 2)


def _write_alibi(spec: ModelSpec, keys: Metadata) -> Metadata:
    mixer = spec.layers[0].mixer
    slopes = mixer.slopes if isinstance(mixer, Attention) else None
    return keys if slopes is None else keys | {"attention.max_alibi_bias": largest_exponent(slopes)}


@architecture("gpt2", "gpt2", layout=fused_first)
def gpt2(h: Header) -> Config:
    """GPT-2."""
    names = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    }
    config = _read(h, "gpt2", "GPT2LMHeadModel", names)
    return config | {"n_inner": h.integer("feed_forward_length"), "activation_function": "gelu_new"}


def _write_gptneox(spec: ModelSpec, keys: Metadata) -> Metadata:
    return keys | {"use_parallel_residual": spec.layers[0].placement == "parallel_two"}


@architecture("gptneox", "gpt_neox", write=_write_gptneox, layout=fused_first)
def gptneox(h: Header) -> Config:
    """GPT-NeoX and Pythia."""
    config = _read(h, "gpt_neox", "GPTNeoXForCausalLM", {"layer_norm_epsilon": "layer_norm_eps"})
    width = config["hidden_size"] // config["num_attention_heads"]
    rope = read_rope(h, width, config["max_position_embeddings"])
    return config | {
        "intermediate_size": h.integer("feed_forward_length"),
        "hidden_act": "gelu",
        "use_parallel_residual": h.flag("use_parallel_residual", True),
        "attention_bias": True,
        "rotary_pct": rope.pop("partial_rotary_factor", 1.0),
        "rotary_emb_base": rope.pop("rope_theta"),
        **rope,
    }


@architecture("bloom", "bloom", write=_write_alibi, layout=fused_first)
def bloom(h: Header) -> Config:
    """BLOOM."""
    names = {
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "seq_length",
    }
    config = _read(h, "bloom", "BloomForCausalLM", names)
    h.only("feed_forward_length", 4 * config["hidden_size"])
    h.only("attention.max_alibi_bias", _ALIBI)
    return config


@architecture("mpt", "mpt", write=_write_alibi, layout=fused_first)
def mpt(h: Header) -> Config:
    """MPT, with ALiBi."""
    names = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "max_position_embeddings": "max_seq_len",
    }
    config = _read(h, "mpt", "MPTForCausalLM", names)
    dim, hidden = config["d_model"], h.integer("feed_forward_length")
    if hidden % dim:
        raise h.wrong("feed_forward_length", hidden, f"a multiple of {dim}")
    return config | {
        "expansion_ratio": hidden // dim,
        "no_bias": True,
        "attn_config": {"alibi": True, "alibi_bias_max": h.number("attention.max_alibi_bias")}
        | h.optional("attention.clamp_kqv", "clip_qkv"),
    }


def _falcon_layout(spec: ModelSpec) -> Table:
    """Of two norms the feed-forward block's is the first."""
    table = fused_first(spec)
    if spec.layers[0].placement == "parallel_two":
        table |= {
            "layers.{i}.mixer_norm": (Entry("blk.{i}.attn_norm_2"),),
            "layers.{i}.channel_norm": (Entry("blk.{i}.attn_norm"),),
        }
    return table


@architecture("falcon", "falcon", layout=_falcon_layout)
def falcon(h: Header) -> Config:
    """Falcon 1 and 2, with rotary positions and both blocks side by side."""
    config = core(h)
    config |= heads(h, config["hidden_size"])
    kv_heads, width = config.pop("num_key_value_heads"), config.pop("head_dim")
    h.only("attention.key_length", config["hidden_size"] // config["num_attention_heads"])
    rope = read_rope(h, width, config["max_position_embeddings"])
    grouped = kv_heads > 1
    two = "blk.0.attn_norm_2.weight" in h.tensors
    return (
        {"model_type": "falcon", "architectures": ["FalconForCausalLM"]}
        | config
        | rope
        | {
            "layer_norm_epsilon": h.number(f"attention.{LAYER_NORM}"),
            "ffn_hidden_size": h.integer("feed_forward_length"),
            "activation": "gelu",
            "alibi": False,
            "bias": False,
            "parallel_attn": True,
            "multi_query": True,
            "new_decoder_architecture": grouped,
        }
        | ({"num_kv_heads": kv_heads, "num_ln_in_parallel_attn": 2 if two else 1} if grouped else {})
    )


@architecture("olmo", "olmo", layout=paired_heads)
def olmo(h: Header) -> Config:
    """OLMo 1: norms have no weights."""
    config = standard(h, "olmo", "OlmoForCausalLM", norm=LAYER_NORM) | {"hidden_act": "silu"} | biases(h)
    h.only(f"attention.{LAYER_NORM}", 1e-5)
    del config["layer_norm_eps"]
    return config | h.optional("attention.clamp_kqv", "clip_qkv")


def _write_stablelm(spec: ModelSpec, keys: Metadata) -> Metadata:
    return keys | {"use_parallel_residual": spec.layers[0].placement == "parallel"}


@architecture("stablelm", "stablelm", write=_write_stablelm)
def stablelm(h: Header) -> Config:
    """StableLM 1 and 2: layers without a second norm have both blocks side by side."""
    config = standard(h, "stablelm", "StableLmForCausalLM", norm=LAYER_NORM)
    h.get("use_parallel_residual")  # files of models that have it not say so too
    return config | {
        "hidden_act": "silu",
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
        "use_qkv_bias": "blk.0.attn_q.bias" in h.tensors,
        "qk_layernorm": "blk.0.attn_q_norm.weight" in h.tensors,
        "use_parallel_residual": "blk.0.ffn_norm.weight" not in h.tensors,
    }


def _write_starcoder2(spec: ModelSpec, keys: Metadata) -> Metadata:
    return one_window({"attention.sliding_window": 0} | keys)


@architecture("starcoder2", "starcoder2", write=_write_starcoder2)
def starcoder2(h: Header) -> Config:
    """StarCoder2: files without a window are of models that have one, which the converter leaves out."""
    config = standard(h, "starcoder2", "Starcoder2ForCausalLM", norm=LAYER_NORM)
    window = h.integer("attention.sliding_window", _STARCODER2_WINDOW, low=0)
    return config | {
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": config.pop("layer_norm_eps"),
        "use_bias": "blk.0.attn_q.bias" in h.tensors,
        "sliding_window": window or None,
    }
