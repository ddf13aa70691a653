"""DeepSeek V2 and V3, and what has their blocks."""

import math

from macllm.families.names import Table
from macllm.spec import LatentAttention, ModelSpec, MoE, YarnScaling
from macllm.spec.names import Entry, LatentHeads
from macllm.weights.gguf.header import Config, Header, shortest
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.rope import read_rope, rope_keys
from macllm.weights.gguf.standard import RMS, SIGMOID, SOFTMAX, core, experts

# Files from before `expert_group_count` leave it out; DeepSeek V3 and R1 have 8 groups of 32 and take from 4.
_V3_EXPERTS, _V3_GROUPS, _V3_TOP_GROUPS = 256, 8, 4
_LOG_MULTIPLIER = 0.1  # the converter stores mscale_all_dim times this


def _layout(spec: ModelSpec) -> Table:
    """Keys and values of the heads apart, as stacks; as one matrix in older files."""
    mixer = next(layer.mixer for layer in spec.layers if isinstance(layer.mixer, LatentAttention))
    keys = ("layers.{i}.mixer.k_up", "layers.{i}.mixer.v_up")
    whole = Entry("blk.{i}.attn_kv_b", (LatentHeads(mixer.heads, mixer.nope_dim),), keys=keys)
    return {
        keys[0]: (Entry("blk.{i}.attn_k_b"), whole),
        keys[1]: (Entry("blk.{i}.attn_v_b"), whole),
        "layers.{i}.mixer.q_norm": (Entry("blk.{i}.attn_q_a_norm"),),
    }


def _write(spec: ModelSpec, keys: Metadata) -> Metadata:
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, LatentAttention)
    keys |= rope_keys(mixer.rope) | {
        "attention.head_count": mixer.heads,
        "attention.head_count_kv": 1,
        "attention.key_length": mixer.kv_rank + mixer.rope_dim,
        "attention.value_length": mixer.kv_rank,
        "attention.key_length_mla": mixer.nope_dim + mixer.rope_dim,
        "attention.value_length_mla": mixer.value_dim,
        "attention.kv_lora_rank": mixer.kv_rank,
    }
    if mixer.q_rank is not None:
        keys["attention.q_lora_rank"] = mixer.q_rank
    moe = next(layer.channel for layer in spec.layers if isinstance(layer.channel, MoE))
    assert moe.shared is not None
    keys["expert_shared_count"] = moe.shared.hidden // moe.hidden
    scaling = mixer.rope.scaling
    if isinstance(scaling, YarnScaling):
        all_dim = (scaling.score_factor**0.5 - 1) / (0.1 * math.log(scaling.factor))
        keys["rope.scaling.yarn_log_multiplier"] = _LOG_MULTIPLIER * all_dim
    # the attention factor is taken for 1, as it is in all published models
    return without(keys, "rope.scaling.yarn_attn_factor", "expert_shared_feed_forward_length")


@architecture("deepseek2", "deepseek_v3", "kimi_k2", "deepseek_v2", write=_write, layout=_layout)
def deepseek2(h: Header) -> Config:
    """DeepSeek V2, V3 and R1, and Kimi K2: V2's files do not say how experts are scored, which is by softmax."""
    stated = h.get("expert_gating_func")
    is_v3 = stated == SIGMOID or (stated is None and any("exp_probs_b" in name for name in h.tensors))
    version = 3 if is_v3 else 2
    config: Config = {
        "model_type": f"deepseek_v{version}",
        "architectures": [f"DeepseekV{version}ForCausalLM"],
    } | core(h)
    rope_dim = h.integer("rope.dimension_count")
    split = h.get("attention.key_length_mla") is not None  # else a file from before heads were kept apart
    suffix = "_mla" if split else ""
    width = h.integer(f"attention.key_length{suffix}")
    config |= {
        "num_attention_heads": h.integer("attention.head_count"),
        "num_key_value_heads": h.integer("attention.head_count"),
        "q_lora_rank": h.integer("attention.q_lora_rank") if h.get("attention.q_lora_rank") else None,
        "kv_lora_rank": h.integer("attention.kv_lora_rank"),
        "qk_nope_head_dim": width - rope_dim,
        "qk_rope_head_dim": rope_dim,
        "v_head_dim": h.integer(f"attention.value_length{suffix}"),
        "rope_interleave": True,
    }
    for key in ("head_count_kv", "key_length", "value_length"):
        h.get(f"attention.{key}")  # of the compressed vector where heads are kept apart
    config |= read_rope(h, rope_dim, config["max_position_embeddings"])
    if (config.get("rope_scaling") or {}).get("rope_type") == "yarn":
        all_dim = shortest(h.number("rope.scaling.yarn_log_multiplier") / _LOG_MULTIPLIER)
        config["rope_scaling"] |= {"mscale": all_dim, "mscale_all_dim": all_dim}
    config |= {"hidden_act": "silu", "rms_norm_eps": h.number(f"attention.{RMS}")} | _experts(h, is_v3)
    return config if is_v3 else config | _version_2(config)


def _experts(h: Header, is_v3: bool) -> Config:
    config = experts(h, count="n_routed_experts", gating=SIGMOID if is_v3 else SOFTMAX)
    grouped = is_v3 and config["n_routed_experts"] == _V3_EXPERTS
    return config | {
        "intermediate_size": h.integer("feed_forward_length"),
        "first_k_dense_replace": h.integer("leading_dense_block_count", 0, low=0),
        "n_shared_experts": h.integer("expert_shared_count"),
        "norm_topk_prob": h.flag("expert_weights_norm", False),
        "routed_scaling_factor": h.number("expert_weights_scale", 1.0),
        "n_group": h.integer("expert_group_count", _V3_GROUPS if grouped else 1),
        "topk_group": h.integer("expert_group_used_count", _V3_TOP_GROUPS if grouped else 1),
    }


def _version_2(config: Config) -> Config:
    return {
        "scoring_func": "softmax",
        "topk_method": "group_limited_greedy" if config["n_group"] > 1 else "greedy",
    }
