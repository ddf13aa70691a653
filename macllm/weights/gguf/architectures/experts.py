"""Mixtures of experts that llama.cpp gives an architecture of their own."""

from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import late_norm
from macllm.weights.gguf.registry import architecture
from macllm.weights.gguf.standard import SIGMOID, SOFTMAX_CHOSEN, biases, experts, layer_types, standard

_GPT_OSS_EVERY = 2


@architecture("olmoe", "olmoe")
def olmoe(h: Header) -> Config:
    """OLMoE: what the chosen experts weigh is not made to sum to one."""
    config = standard(h, "olmoe", "OlmoeForCausalLM") | {"hidden_act": "silu"} | biases(h)
    found = experts(h, hidden="intermediate_size", default=config["intermediate_size"], renormalized=False)
    return config | found | {"norm_topk_prob": False}


@architecture("gpt-oss", "gpt_oss", layout=late_norm)
def gpt_oss(h: Header) -> Config:
    """gpt-oss: every other layer slides; YaRN's bounds are not rounded, which llama.cpp does and no key says."""
    config = standard(h, "gpt_oss", "GptOssForCausalLM") | {"hidden_act": "silu"}
    h.only("rope.freq_base_swa", config["rope_theta"])
    if "rope_scaling" in config:
        config["rope_scaling"]["truncate"] = False
    return (
        config
        | experts(h, count="num_local_experts", hidden="intermediate_size", gating=SOFTMAX_CHOSEN)
        | {
            "attention_bias": "blk.0.attn_q.bias" in h.tensors,
            "sliding_window": h.integer("attention.sliding_window"),
            "layer_types": layer_types(h, config["num_hidden_layers"], _GPT_OSS_EVERY),
        }
    )


@architecture("minimax-m2", "minimax_m2", "minimax")
def minimax_m2(h: Header) -> Config:
    """MiniMax-M2: what the chosen experts weigh always sums to one."""
    config = standard(h, "minimax_m2", "MiniMaxM2ForCausalLM") | {"hidden_act": "silu"}
    dims = int(config["head_dim"] * config.pop("partial_rotary_factor", 1.0))
    found = experts(
        h, count="num_local_experts", hidden="intermediate_size", gating=SIGMOID, renormalized=True
    )
    return config | found | {"rotary_dim": dims}
