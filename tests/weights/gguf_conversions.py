"""What llama.cpp's converter does for one family alone: its keys, and what becomes of its tensors."""

import numpy as np
from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, converts

EXPERTS = {"gate_proj": "gate_proj", "up_proj": "up_proj", "down_proj": "down_proj"}
MIXTRAL_EXPERTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


@converts(ARCH.LLAMA, "llama", "mistral", "mixtral")
def llama(m: Conversion) -> None:
    m.keys |= {"vocab_size": m.config["vocab_size"], "rope.dimension_count": m.head_dim}
    m.permute()
    m.stack_experts("block_sparse_moe.experts", MIXTRAL_EXPERTS)


@converts(ARCH.QWEN2, "qwen2")
@converts(ARCH.QWEN3, "qwen3")
@converts(ARCH.ERNIE4_5, "ernie4_5")
@converts(ARCH.SEED_OSS, "seed_oss")
def nothing_more(m: Conversion) -> None:
    pass


@converts(ARCH.SMOLLM3, "smollm3")
def smollm3(m: Conversion) -> None:
    llama(m)


@converts(ARCH.HUNYUAN_DENSE, "hunyuan_v1_dense")
def hunyuan_dense(m: Conversion) -> None:
    rope = m.rope
    if rope.get("rope_type") == "dynamic":
        base = rope["rope_theta"] * rope["alpha"] ** (m.head_dim / (m.head_dim - 2))
        m.keys |= {"rope.freq_base": base, "rope.scaling.type": "none", "rope.scaling.factor": 1.0}


@converts(ARCH.OLMO2, "olmo2", "olmo3")
def olmo2(m: Conversion) -> None:
    if m.find("sliding_window") is not None:
        m.keys["attention.sliding_window"] = m.config["sliding_window"]
        m.keys["attention.sliding_window_pattern"] = m.sliding_pattern()


@converts(ARCH.GEMMA, "gemma")
def gemma(m: Conversion) -> None:
    m.keys.pop("rope.freq_base", None)
    m.change("norm.weight", lambda values: values + 1)  # stored as the factor that it is


@converts(ARCH.GEMMA2, "gemma2")
def gemma2(m: Conversion) -> None:
    gemma(m)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        m.keys[key] = m.config[key]
    m.keys["attention.sliding_window"] = m.config["sliding_window"]


@converts(ARCH.GEMMA3, "gemma3_text")
def gemma3(m: Conversion) -> None:
    """Which layers slide is not written: readers know that of gemma3."""
    m.keys.setdefault("rope.freq_base", 1_000_000.0)
    m.keys["attention.sliding_window"] = m.config["sliding_window"]
    m.change("norm.weight", lambda values: values + 1)


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
