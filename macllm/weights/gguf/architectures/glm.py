"""GLM 4: dense, a rotation of neighbours in part of each head; and with experts."""

from macllm.families.names import Table, fused
from macllm.spec import ModelSpec, MoE
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import late_norm
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.standard import SIGMOID, experts, standard


def _layout(spec: ModelSpec) -> Table:
    """Gate and up as one matrix under the name of up."""
    return fused("blk.{i}.ffn_up", "layers.{i}.channel.gate", "layers.{i}.channel.up")


@architecture("chatglm", "glm", layout=_layout)
def chatglm(h: Header) -> Config:
    """GLM-4 9B and GLM-Edge."""
    return _dense(h, "glm", "GlmForCausalLM")


@architecture("glm4", "glm4", layout=_layout)
def glm4(h: Header) -> Config:
    """GLM-4 0414: a norm after each block too."""
    return _dense(h, "glm4", "Glm4ForCausalLM")


def _dense(h: Header, model_type: str, model: str) -> Config:
    config = standard(h, model_type, model)
    return config | {
        "hidden_act": "silu",
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
        "attention_bias": any(f"blk.0.attn_{name}.bias" in h.tensors for name in ("q", "qkv")),
    }


def _write_moe(spec: ModelSpec, keys: Metadata) -> Metadata:
    moe = next(layer.channel for layer in spec.layers if isinstance(layer.channel, MoE))
    assert moe.shared is not None
    keys["expert_shared_count"] = moe.shared.hidden // moe.hidden
    return without(keys, "expert_shared_feed_forward_length")


@architecture("glm4moe", "glm4_moe", write=_write_moe, layout=late_norm)
def glm4moe(h: Header) -> Config:
    """GLM 4.5 and later."""
    config = standard(h, "glm4_moe", "Glm4MoeForCausalLM")
    return (
        config
        | experts(h, count="n_routed_experts", gating=SIGMOID)
        | {
            "hidden_act": "silu",
            "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
            "attention_bias": "blk.0.attn_q.bias" in h.tensors,
            "use_qk_norm": "blk.0.attn_q_norm.weight" in h.tensors,
            "first_k_dense_replace": h.integer("leading_dense_block_count", 0, low=0),
            "n_shared_experts": h.integer("expert_shared_count"),
            "norm_topk_prob": h.flag("expert_weights_norm", False),
            "routed_scaling_factor": h.number("expert_weights_scale", 1.0),
            "n_group": h.integer("expert_group_count", 1),
            "topk_group": h.integer("expert_group_used_count", 1),
        }
    )
