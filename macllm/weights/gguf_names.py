"""Under which names llama.cpp holds a model's tensors: one table for all architectures, and what few do otherwise."""

from macllm.spec import Attention, ModelSpec
from macllm.spec.names import Entry, HeadPairs, Names
from macllm.weights.names import Naming

_MODULES = {
    "embed": "token_embd",
    "norm": "output_norm",
    "head": "output",
    "layers.{i}.mixer.q": "blk.{i}.attn_q",
    "layers.{i}.mixer.k": "blk.{i}.attn_k",
    "layers.{i}.mixer.v": "blk.{i}.attn_v",
    "layers.{i}.mixer.o": "blk.{i}.attn_output",
    "layers.{i}.mixer.q_norm": "blk.{i}.attn_q_norm",
    "layers.{i}.mixer.k_norm": "blk.{i}.attn_k_norm",
    "layers.{i}.mixer_norm": "blk.{i}.attn_norm",
    "layers.{i}.mixer_post_norm": "blk.{i}.post_attention_norm",
    "layers.{i}.channel_norm": "blk.{i}.ffn_norm",
    "layers.{i}.channel_post_norm": "blk.{i}.post_ffw_norm",
    "layers.{i}.channel.gate": "blk.{i}.ffn_gate",
    "layers.{i}.channel.up": "blk.{i}.ffn_up",
    "layers.{i}.channel.down": "blk.{i}.ffn_down",
}


def gguf_naming(spec: ModelSpec, architecture: str) -> Naming:
    """The names in a file whose ``general.architecture`` is ``architecture``."""
    table = {key: (Entry(stored),) for key, stored in _MODULES.items()}
    if architecture == "llama":  # llama.cpp rotates neighbours there, and its converter reorders the rows for it
        mixer = next(layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention))
        for name, heads in (("q", mixer.heads), ("k", mixer.kv_heads)):
            table[f"layers.{{i}}.mixer.{name}"] = (Entry(f"blk.{{i}}.attn_{name}", (HeadPairs(heads),)),)
    # rope_freqs holds the scaling that the config carries; a tied head may be stored a second time
    ignored = (r"rope_freqs\.weight", r"output\.weight") if spec.tied else (r"rope_freqs\.weight",)
    return Naming(spec, Names(tuple(table.items()), ignored), "hub")
