"""Qwen, dense and with experts."""

from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import architecture
from macllm.weights.gguf.standard import biases, experts, no_window, standard


@architecture("qwen2", "qwen2")
def qwen2(h: Header) -> Config:
    """Qwen2 and Qwen2.5."""
    config = standard(h, "qwen2", "Qwen2ForCausalLM") | {"hidden_act": "silu"}
    no_window(h, config["max_position_embeddings"])
    return config


@architecture("qwen3", "qwen3")
def qwen3(h: Header) -> Config:
    """Qwen3, dense."""
    config = standard(h, "qwen3", "Qwen3ForCausalLM") | {"hidden_act": "silu"}
    no_window(h, config["max_position_embeddings"])
    return config | biases(h)


@architecture("qwen2moe", "qwen2_moe")
def qwen2moe(h: Header) -> Config:
    """Qwen1.5-MoE and Qwen2-MoE: what the chosen experts weigh is not made to sum to one."""
    config = standard(h, "qwen2_moe", "Qwen2MoeForCausalLM") | {"hidden_act": "silu"}
    no_window(h, config["max_position_embeddings"])
    hidden = config["intermediate_size"]
    return (
        config
        | experts(h, default=hidden // h.integer("expert_used_count"), renormalized=False)
        | {
            "qkv_bias": "blk.0.attn_q.bias" in h.tensors,
            "shared_expert_intermediate_size": h.integer("expert_shared_feed_forward_length", hidden),
            "norm_topk_prob": False,
        }
    )


@architecture("qwen3moe", "qwen3_moe")
def qwen3moe(h: Header) -> Config:
    """Qwen3 with experts."""
    config = standard(h, "qwen3_moe", "Qwen3MoeForCausalLM") | {"hidden_act": "silu"} | biases(h)
    no_window(h, config["max_position_embeddings"])
    hidden = config["intermediate_size"]
    found = experts(h, default=hidden // h.integer("expert_used_count"), renormalized=True)
    return config | found | {"norm_topk_prob": True}
