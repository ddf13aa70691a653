"""The part of a GGUF header that most architectures share, as Hugging Face's config has it."""

import numpy as np

from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.rope import read_rope

RMS, LAYER_NORM = "layer_norm_rms_epsilon", "layer_norm_epsilon"
SOFTMAX, SIGMOID, SOFTMAX_CHOSEN = 1, 2, 3  # of "expert_gating_func"


def core(h: Header) -> Config:
    """What every model has: sizes of vocabulary, width, depth and context, and whether the output is tied.

    The vocabulary is the rows of ``token_embd.weight``; a file without ``output.weight`` ties the output to it.
    Layers that predict further tokens come last and are not counted.
    """
    embedding = h.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise h.damaged("tensor 'token_embd.weight' is missing or no matrix")
    layers = h.integer("block_count")
    if layers > len(h.tensors):  # before anything makes a list with an entry a layer
        raise h.damaged(
            f"its metadata announces {layers} layers, its {len(h.tensors)} tensors are too few for that"
        )
    h.only("attention.causal", True)
    return {
        "vocab_size": embedding.shape[0],
        "hidden_size": h.integer("embedding_length"),
        "num_hidden_layers": layers - h.integer("nextn_predict_layers", 0, low=0),
        "max_position_embeddings": h.integer("context_length"),
        "tie_word_embeddings": "output.weight" not in h.tensors,
    }


def heads(h: Header, dim: int, kv_heads: int | None = None) -> Config:
    """Heads and their width, the same in all layers; ``kv_heads`` where the file does not have them as one number."""
    count = h.integer("attention.head_count")
    head_dim = h.integer("attention.key_length", dim // count or None)
    for key in ("attention.value_length", "attention.key_length_swa", "attention.value_length_swa"):
        h.only(key, head_dim)
    return {
        "num_attention_heads": count,
        "num_key_value_heads": kv_heads or h.integer("attention.head_count_kv", count),
        "head_dim": head_dim,
    }


def standard(
    h: Header,
    model_type: str,
    model: str,
    *,
    norm: str = RMS,
    kv_heads: int | None = None,
    hidden: int | None = None,
) -> Config:
    """A decoder with rotary positions; ``model`` is its class in transformers.

    ``kv_heads`` and ``hidden`` where a file does not have them as one number.
    """
    config = core(h)
    config |= heads(h, config["hidden_size"], kv_heads)
    epsilon = "rms_norm_eps" if norm == RMS else "layer_norm_eps"
    return (
        {"model_type": model_type, "architectures": [model]}
        | config
        | {
            "intermediate_size": hidden or h.integer("feed_forward_length"),
            epsilon: h.number(f"attention.{norm}"),
        }
        | read_rope(h, config["head_dim"], config["max_position_embeddings"])
    )


def biases(h: Header) -> Config:
    """Biases of attention and of the feed-forward block, told by their tensors."""
    present = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
    return {key: True for key, name in present.items() if name in h.tensors}


def window(h: Header, context: int) -> int | None:
    """The sliding window, where there is one that a prompt within the context can outgrow."""
    if not h.get("attention.sliding_window"):
        return None
    found = h.integer("attention.sliding_window")
    return found if found < context else None


def no_window(h: Header, context: int) -> None:
    """Refuses a window in an architecture that llama.cpp gives none."""
    found = window(h, context)
    if found is not None:
        raise h.wrong("attention.sliding_window", found, "none for this architecture")


def layer_types(h: Header, layers: int, every: int | None = None) -> list[str]:
    """The kind of each layer: by the key, or each ``every``-th sees all (None: each does)."""
    key = "attention.sliding_window_pattern"
    if isinstance(h.get(key), np.ndarray | bool):
        sliding = h.flags(key, layers) or []
    else:
        every = h.integer(key, every)
        sliding = [bool((index + 1) % every) for index in range(layers)]
    return ["sliding_attention" if each else "full_attention" for each in sliding]


def experts(
    h: Header,
    *,
    count: str = "num_experts",
    hidden: str = "moe_intermediate_size",
    default: int | None = None,
    gating: int = SOFTMAX,
    renormalized: bool | None = None,
) -> Config:
    """Experts, how many of them a token takes, and their width (``default`` where the key is missing).

    ``gating`` and ``renormalized`` are what llama.cpp computes whatever keys say (None: the key says it).
    """
    h.only("expert_gating_func", gating)
    if renormalized is not None:
        h.only("expert_weights_norm", renormalized)
    return {
        count: h.integer("expert_count"),
        "num_experts_per_tok": h.integer("expert_used_count"),
        hidden: h.integer("expert_feed_forward_length", default),
    }
