"""Ways in which tensors lie that several architectures share."""

from macllm.families.names import Table, fused
from macllm.spec import Attention, ModelSpec
from macllm.spec.names import Each, Entry, HeadPairs, Rows

QKV = tuple(f"layers.{{i}}.mixer.{name}" for name in "qkv")


def paired_heads(spec: ModelSpec) -> Table:
    """q and k with the rows of each head in pairs: llama.cpp's converter reorders them for a rotation of neighbours."""
    width = next(layer.mixer.head_dim for layer in spec.layers if isinstance(layer.mixer, Attention))
    pairs = (HeadPairs(width),)
    fused = Entry("blk.{i}.attn_qkv", (Rows(), Each((pairs, pairs, ()))), keys=QKV)
    q, k, v = QKV
    return {
        q: (Entry("blk.{i}.attn_q", pairs), fused),
        k: (Entry("blk.{i}.attn_k", pairs), fused),
        v: (Entry("blk.{i}.attn_v"), fused),
    }


def late_norm(spec: ModelSpec) -> Table:
    """The norm before the feed-forward block under the name that others give to one after attention."""
    return {"layers.{i}.channel_norm": (Entry("blk.{i}.post_attention_norm"),)}


def fused_first(spec: ModelSpec) -> Table:
    """q, k and v as one matrix, unless a file has them apart."""
    whole = fused("blk.{i}.attn_qkv", *QKV)
    return {key: (*whole[key], Entry(key.replace("layers.{i}.mixer.", "blk.{i}.attn_"))) for key in QKV}
