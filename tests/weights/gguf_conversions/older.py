"""Families from before Llama: few keys, and q, k and v as one matrix."""

import numpy as np
from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, Values, converts

COMMON = (
    "block_count context_length embedding_length attention.head_count attention.layer_norm_epsilon "
    "rope.dimension_count"
).split()


@converts(ARCH.GPT2, "gpt2")
def gpt2(m: Conversion) -> None:
    m.only(*COMMON)
    m.keys["feed_forward_length"] = 4 * m.config["n_embd"]
    for end in ("c_attn.weight", "c_proj.weight", "c_fc.weight"):
        m.change(end, np.transpose)


@converts(ARCH.GPTNEOX, "gpt_neox")
def gptneox(m: Conversion) -> None:
    m.only(*COMMON, "feed_forward_length")
    m.keys["rope.dimension_count"] = int(m.rope.get("partial_rotary_factor", 0.25) * m.head_dim)
    m.keys["use_parallel_residual"] = m.config.get("use_parallel_residual", True)
    m.change("query_key_value.weight", lambda values: by_kind(values, m.heads))
    m.change("query_key_value.bias", lambda values: by_kind(values, m.heads))


@converts(ARCH.BLOOM, "bloom")
def bloom(m: Conversion) -> None:
    m.only(*COMMON)
    m.keys |= {
        "context_length": m.config.get("seq_length", m.config["hidden_size"]),
        "feed_forward_length": 4 * m.config["hidden_size"],
        "attention.head_count_kv": m.heads,
    }
    m.change("query_key_value.weight", lambda values: by_kind(values, m.heads))
    m.change("query_key_value.bias", lambda values: by_kind(values, m.heads))
    m.rename("transformer.", "")


def by_kind(values: Values, heads: int) -> Values:
    """The rows of q, k and v of each head as those of all heads, of q, of k and of v."""
    apart = values.reshape(heads, 3, -1, *values.shape[1:])
    return np.concatenate([apart[:, kind].reshape(-1, *values.shape[1:]) for kind in range(3)])


@converts(ARCH.MPT, "mpt")
def mpt(m: Conversion) -> None:
    attention = m.config["attn_config"]
    m.only(*COMMON)
    m.keys |= {
        "feed_forward_length": 4 * m.config["d_model"],
        "attention.layer_norm_epsilon": 1e-5,
        "attention.max_alibi_bias": float(attention["alibi_bias_max"]),
    }
    if attention["clip_qkv"] is not None:
        m.keys["attention.clamp_kqv"] = attention["clip_qkv"]


@converts(ARCH.FALCON, "falcon")
def falcon(m: Conversion) -> None:
    new = m.config.get("new_decoder_architecture", False)
    kv_heads = m.config["num_kv_heads"] if new else 1
    m.only(*COMMON)
    m.keys |= {
        "context_length": 2048,
        "feed_forward_length": 4 * m.config["hidden_size"],
        "attention.head_count_kv": kv_heads,
        "tensor_data_layout": "jploski",
    }

    def by_kind_and_group(values: Values) -> Values:
        apart = values.reshape(kv_heads, m.heads // kv_heads + 2, m.head_dim, -1)
        parts = (apart[:, :-2], apart[:, -2:-1], apart[:, -1:])
        return np.concatenate([part.reshape(-1, values.shape[-1]) for part in parts])

    m.change("query_key_value.weight", by_kind_and_group)


@converts(ARCH.OLMO, "olmo")
def olmo(m: Conversion) -> None:
    m.keys["attention.layer_norm_epsilon"] = 1e-5
    if m.config.get("clip_qkv") is not None:
        m.keys["attention.clamp_kqv"] = m.config["clip_qkv"]
    m.permute()


@converts(ARCH.PHI2, "phi")
def phi2(m: Conversion) -> None:
    m.only(*COMMON)
    m.keys |= {
        "feed_forward_length": 4 * m.config["hidden_size"],
        "attention.head_count_kv": m.heads,
        "rope.dimension_count": int(m.rope["partial_rotary_factor"] * m.head_dim),
    }


@converts(ARCH.STABLELM, "stablelm")
def stablelm(m: Conversion) -> None:
    m.only(*COMMON, "feed_forward_length", "attention.head_count_kv")
    m.keys["rope.dimension_count"] = int(m.rope["partial_rotary_factor"] * m.head_dim)
    m.keys["use_parallel_residual"] = m.config.get("use_parallel_residual", True)
    for layer in range(m.layers):
        for name, heads in (("q", m.heads), ("k", m.kv_heads)):
            stem = f"model.layers.{layer}.self_attn.{name}_layernorm"
            parts = [m.tensors.pop(f"{stem}.norms.{head}.weight", None) for head in range(heads)]
            if parts[0] is not None:
                m.tensors[f"{stem}.weight"] = np.stack(parts)


@converts(ARCH.STARCODER2, "starcoder2")
def starcoder2(m: Conversion) -> None:
    """It has no key for the window."""
