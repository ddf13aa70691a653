"""Mixtures of experts: a projection of all experts of a layer is one stack."""

import numpy as np
from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, converts

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


@converts(ARCH.DEEPSEEK2, "deepseek_v3")
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
        "expert_weights_norm": c["norm_topk_prob"],
        "expert_gating_func": 2,  # the repository's config says it, transformers' does not
    }
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
