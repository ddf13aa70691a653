"""Phi 2 to 4, and Phi 3.5 with experts."""

from macllm.families.names import Table, fused
from macllm.spec import ModelSpec
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import fused_first
from macllm.weights.gguf.registry import Metadata, architecture, one_window, without
from macllm.weights.gguf.standard import LAYER_NORM, experts, standard

# Phi-3.5-MoE's temperature of q and k, 32 times its first context and on; the converter computes another.
_MOE_CONTEXTS, _MOE_TEMPERATURE = (4096, 131072), 1.243163121016122


@architecture("phi2", "phi")
def phi2(h: Header) -> Config:
    """Phi 1, 1.5 and 2."""
    config = standard(h, "phi", "PhiForCausalLM", norm=LAYER_NORM)
    del config["head_dim"]
    return config | {
        "hidden_act": "gelu_new",
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
    }


def layout(spec: ModelSpec) -> Table:
    """q, k and v as one matrix, gate and up as another under the name of up."""
    return fused_first(spec) | fused("blk.{i}.ffn_up", "layers.{i}.channel.gate", "layers.{i}.channel.up")


@architecture("phi3", "phi3", write=lambda spec, keys: one_window(keys), layout=layout)
def phi3(h: Header) -> Config:
    """Phi 3, 3.5 and 4: a window of 0 is none, and one that llama.cpp leaves out is the model's all the same."""
    config = _turning(h, standard(h, "phi3", "Phi3ForCausalLM"))
    window = h.get("attention.sliding_window")
    return config | {
        "hidden_act": "silu",
        "sliding_window": h.integer("attention.sliding_window") if window else None,
    }


def _turning(h: Header, config: Config) -> Config:
    """The first context stands outside of the scaling in these configs, and as well in files without one."""
    scaling = config.get("rope_scaling") or {}
    context = h.integer("rope.scaling.original_context_length", config["max_position_embeddings"])
    return config | {
        "original_max_position_embeddings": scaling.pop("original_max_position_embeddings", context)
    }


def _write_phimoe(spec: ModelSpec, keys: Metadata) -> Metadata:
    """The norm is LayerNorm under the other's key; how experts are chosen has no keys."""
    keys = one_window(keys)
    keys["attention.layer_norm_rms_epsilon"] = keys.pop("attention.layer_norm_epsilon")
    return without(keys, "expert_feed_forward_length", "expert_gating_func", "expert_weights_norm")


@architecture("phimoe", "phimoe", write=_write_phimoe)
def phimoe(h: Header) -> Config:
    """Phi 3.5 with experts."""
    config = _turning(h, standard(h, "phimoe", "PhimoeForCausalLM"))
    window = h.get("attention.sliding_window")
    scaling = config.get("rope_scaling") or {}
    if (config["original_max_position_embeddings"], config["max_position_embeddings"]) == _MOE_CONTEXTS:
        scaling |= {"short_mscale": _MOE_TEMPERATURE, "long_mscale": _MOE_TEMPERATURE}
    found = experts(
        h, count="num_local_experts", hidden="intermediate_size", default=config["intermediate_size"]
    )
    return (
        config
        | found
        | {
            "hidden_act": "silu",
            "attention_bias": "blk.0.attn_q.bias" in h.tensors,
            "lm_head_bias": "output.bias" in h.tensors,
            "sliding_window": h.integer("attention.sliding_window") if window else None,
        }
    )
