"""Mixtures of experts: a projection of all experts of a layer is one stack."""

import numpy as np
from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, converts

from gguf_conversions.dense import MIXTRAL_EXPERTS

EXPERTS = {"gate_proj": "gate_proj", "up_proj": "up_proj", "down_proj": "down_proj"}


@converts(ARCH.QWEN2MOE, "qwen2_moe")
@converts(ARCH.QWEN3MOE, "qwen3_moe")
def qwen_moe(m: Conversion) -> None:
    widths = {
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    }
    m.keys |= {key: m.config[word] for key, word in widths.items() if word in m.config}
    m.stack_experts("mlp.experts", EXPERTS)


@converts(ARCH.OLMOE, "olmoe")
def olmoe(m: Conversion) -> None:
    m.keys["attention.layer_norm_rms_epsilon"] = 1e-5
    m.stack_experts("mlp.experts", EXPERTS)


@converts(ARCH.DEEPSEEK2, "deepseek_v2", "deepseek_v3", "kimi_k2")
def deepseek(m: Conversion) -> None:
    c = m.config
    nope, rope, rank = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["kv_lora_rank"]
    m.keys |= {
        "vocab_size": c["vocab_size"],
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": c["v_head_dim"],
        "rope.dimension_count": rope,
        "leading_dense_block_count": c["first_k_dense_replace"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_count": c["n_shared_experts"],
        "expert_weights_scale": c["routed_scaling_factor"],
    }
    if c["model_type"] != "deepseek_v2":
        m.keys["expert_weights_norm"] = c["norm_topk_prob"]
        m.keys["expert_gating_func"] = 2  # the repository's config says it, transformers' does not
    if c["q_lora_rank"] is not None:
        m.keys["attention.q_lora_rank"] = c["q_lora_rank"]
    if "mscale_all_dim" in m.rope:
        m.keys["rope.scaling.yarn_log_multiplier"] = 0.1 * m.rope["mscale_all_dim"]
    m.rename("e_score_correction_bias", "e_score_correction.bias")
    m.stack_experts("mlp.experts", EXPERTS)
    for name in m.named_like("kv_b_proj.weight"):
        heads = m.tensors.pop(name).reshape(m.heads, nope + c["v_head_dim"], rank)
        m.tensors[name.replace("kv_b", "k_b")] = np.swapaxes(heads[:, :nope], 1, 2)
        m.tensors[name.replace("kv_b", "v_b")] = heads[:, nope:]


@converts(ARCH.GLM4_MOE, "glm4_moe")
def glm4_moe(m: Conversion) -> None:
    c = m.config
    m.keys |= {
        "rope.dimension_count": int(m.head_dim * m.rope.get("partial_rotary_factor", 0.5)),
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_count": c["n_shared_experts"],
        "leading_dense_block_count": c["first_k_dense_replace"],
        "expert_gating_func": 2,
        "expert_weights_scale": float(c["routed_scaling_factor"]),
        "expert_weights_norm": c["norm_topk_prob"],
    }
    m.rename("e_score_correction_bias", "e_score_correction.bias")
    m.stack_experts("mlp.experts", EXPERTS)


@converts(ARCH.GPT_OSS, "gpt_oss")
def gpt_oss(m: Conversion) -> None:
    """Experts are stored transposed, the rows of gate and up in turns."""
    m.keys["attention.sliding_window"] = m.config["sliding_window"]
    m.keys["expert_feed_forward_length"] = m.config["intermediate_size"]
    m.rename(".sinks", ".sinks.weight")
    for layer in range(m.layers):
        stem, place = f"model.layers.{layer}.mlp.experts.", f"blk.{layer}.ffn_"
        both = np.swapaxes(m.tensors.pop(f"{stem}gate_up_proj"), 1, 2)
        bias = m.tensors.pop(f"{stem}gate_up_proj_bias")
        m.named |= {
            f"{place}gate_exps.weight": both[:, ::2],
            f"{place}up_exps.weight": both[:, 1::2],
            f"{place}gate_exps.bias": bias[:, ::2],
            f"{place}up_exps.bias": bias[:, 1::2],
            f"{place}down_exps.weight": np.swapaxes(m.tensors.pop(f"{stem}down_proj"), 1, 2),
            f"{place}down_exps.bias": m.tensors.pop(f"{stem}down_proj_bias"),
        }


@converts(ARCH.MINIMAXM2, "minimax_m2", "minimax")
def minimax_m2(m: Conversion) -> None:
    m.keys["expert_feed_forward_length"] = m.config["intermediate_size"]
    m.keys["expert_gating_func"] = 2  # the repository's config says it, transformers' does not
    m.keys["rope.dimension_count"] = m.find(
        "rotary_dim", default=int(m.rope.get("partial_rotary_factor", 1) * m.head_dim)
    )
    m.rename("e_score_correction_bias", "e_score_correction.bias")
    m.stack_experts("block_sparse_moe.experts", MIXTRAL_EXPERTS)


@converts(ARCH.QWEN3NEXT, "qwen3_next")
def qwen3_next(m: Conversion) -> None:
    """Projections of the delta rule lie together by head of the keys, and are taken apart but for beta and decay."""
    delta(m)
    qwen_moe(m)
    c = m.config
    keys, values = c["linear_key_head_dim"], c["linear_value_head_dim"]
    heads, turns = c["linear_num_key_heads"], c["linear_num_value_heads"] // c["linear_num_key_heads"]
    for layer in range(m.layers):
        for name in m.named_like(f"layers.{layer}.linear_attn.in_proj_qkvz.weight"):
            by_head = m.tensors.pop(name).reshape(heads, 2 * keys + 2 * turns * values, -1)
            parts = np.split(by_head, np.cumsum([keys, keys, turns * values]), axis=1)
            q, k, v, z = (part.reshape(-1, by_head.shape[-1]) for part in parts)
            m.named[f"blk.{layer}.attn_qkv.weight"] = np.concatenate([q, k, v])
            m.named[f"blk.{layer}.attn_gate.weight"] = z


@converts(ARCH.QWEN35, "qwen3_5_text")
@converts(ARCH.QWEN35MOE, "qwen3_5_moe_text")
def qwen35(m: Conversion) -> None:
    """The heads of values by turns of their groups."""
    delta(m)
    c = m.config
    heads, width = c["linear_num_key_heads"], c["linear_value_head_dim"]
    before = 2 * heads * c["linear_key_head_dim"]

    def turned(values: np.ndarray, size: int) -> np.ndarray:
        apart = values.reshape(heads, -1, size, *values.shape[1:])
        return np.swapaxes(apart, 0, 1).reshape(values.shape)

    def after_keys(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[:before], turned(values[before:], width)])

    for end in ("in_proj_qkv.weight", "conv1d.weight"):
        m.change(end, after_keys)
    m.change("in_proj_z.weight", lambda values: turned(values, width))
    m.change("linear_attn.out_proj.weight", lambda values: turned(values.T, width).T)
    for end in ("in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_proj.bias"):
        m.change(end, lambda values: turned(values, 1))
    m.keys["rope.dimension_sections"] = [*m.rope.get("mrope_section", [11, 11, 10]), 0]
    if "num_experts" in c:
        qwen_moe(m)


def delta(m: Conversion) -> None:
    """What Qwen3-Next and Qwen3.5 have in common."""
    c = m.config
    m.keys |= {
        "rope.dimension_count": int(m.rope.get("partial_rotary_factor", 0.25) * m.head_dim),
        "attention.recurrent_layers": [kind == "linear_attention" for kind in c["layer_types"]],
        "full_attention_interval": 4,
        "ssm.conv_kernel": c["linear_conv_kernel_dim"],
        "ssm.state_size": c["linear_key_head_dim"],
        "ssm.group_count": c["linear_num_key_heads"],
        "ssm.time_step_rank": c["linear_num_value_heads"],
        "ssm.inner_size": c["linear_num_value_heads"] * c["linear_value_head_dim"],
    }
    m.rename("dt_bias", "dt_proj.bias")
    m.change("conv1d.weight", lambda values: values.squeeze(1))
    for name in m.named_like("norm.weight"):
        if not name.endswith("linear_attn.norm.weight"):
            m.tensors[name] = m.tensors[name] + 1
    for layer in range(m.layers):
        for name in m.named_like(f"layers.{layer}.linear_attn.A_log"):
            m.tensors[name] = -np.exp(m.tensors[name])
        stem = f"model.layers.{layer}.mlp.experts."
        both = m.tensors.pop(f"{stem}gate_up_proj", None)
        if both is not None:
            gate, up = np.split(both, 2, axis=1)
            down = m.tensors.pop(f"{stem}down_proj")
            m.tensors |= {
                f"{stem}gate_proj.weight": gate, f"{stem}up_proj.weight": up, f"{stem}down_proj.weight": down
            }  # fmt: skip
