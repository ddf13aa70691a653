"""RWKV-7."""

from macllm.families.names import Table
from macllm.spec import ModelSpec, TimeMix
from macllm.spec.names import Apart, Entry
from macllm.spec.rwkv import MIXED
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import Metadata, architecture
from macllm.weights.gguf.standard import LAYER_NORM, core

_MIXER = "layers.{i}.mixer."
_NETWORKS = {"decay": "w", "rate": "a", "blend": "v", "gate": "g"}
_RANKS = {
    "attention.decay_lora_rank": "decay_low_rank_dim",
    "attention.iclr_lora_rank": "a_low_rank_dim",
    "attention.value_residual_mix_lora_rank": "v_low_rank_dim",
    "attention.gate_lora_rank": "gate_low_rank_dim",
}


def _layout(spec: ModelSpec) -> Table:
    """The mixes of a layer are one tensor; the networks' biases are tensors of their own."""
    names = {
        **{name: name for name in ("receptance", "key", "value", "output")},
        **{f"{name}_down": f"{letter}1" for name, letter in _NETWORKS.items()},
        **{f"{name}_up.weight": f"{letter}2.weight" for name, letter in _NETWORKS.items()},
        **{f"{name}_up.bias": f"{letter}0.weight" for name, letter in _NETWORKS.items()},
        "key_scale": "k_k.weight",
        "rate_scale": "k_a.weight",
        "bonus": "r_k.weight",
        "norm": "ln",
    }
    table: Table = {f"{_MIXER}{key}": (Entry(f"blk.{{i}}.time_mix_{name}"),) for key, name in names.items()}
    keys = tuple(f"{_MIXER}mix_{name}" for name in MIXED)
    mixed = Entry("blk.{i}.time_mix_lerp_fused.weight", (Apart((1, 1)),), keys=keys)
    channel = {"mix": "lerp_k.weight", "key": "key", "value": "value"}
    return (
        table
        | dict.fromkeys(keys, (mixed,))
        | {
            f"layers.{{i}}.channel.{key}": (Entry(f"blk.{{i}}.channel_mix_{name}"),)
            for key, name in channel.items()
        }
        | {"layers.{i}.channel_norm": (Entry("blk.{i}.attn_norm_2"),)}
    )


def _write(spec: ModelSpec, keys: Metadata) -> Metadata:
    mixers = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, TimeMix)]
    ranks, channel = mixers[-1].ranks, spec.layers[0].channel
    assert channel is not None
    return keys | {
        "attention.head_count": 0,
        "feed_forward_length": channel.hidden,
        "wkv.head_size": mixers[0].head_dim,
        "attention.decay_lora_rank": ranks.decay,
        "attention.iclr_lora_rank": ranks.rate,
        "attention.value_residual_mix_lora_rank": ranks.blend,
        "attention.gate_lora_rank": ranks.gate,
    }


@architecture("rwkv7", "rwkv7", write=_write, layout=_layout)
def rwkv7(h: Header) -> Config:
    """RWKV-7."""
    h.only("attention.head_count", 0)
    return (
        {"model_type": "rwkv7", "architectures": ["RWKV7ForCausalLM"]}
        | core(h)
        | {name: h.integer(key) for key, name in _RANKS.items()}
        | {
            "intermediate_size": h.integer("feed_forward_length"),
            "head_dim": h.integer("wkv.head_size"),
            "norm_eps": h.number(f"attention.{LAYER_NORM}"),
            "hidden_act": "sqrelu",
        }
    )
