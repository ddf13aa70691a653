"""Mixtures of experts that llama.cpp gives an architecture of their own."""

from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import architecture
from macllm.weights.gguf.standard import biases, experts, standard


@architecture("olmoe", "olmoe")
def olmoe(h: Header) -> Config:
    """OLMoE: what the chosen experts weigh is not made to sum to one."""
    config = standard(h, "olmoe", "OlmoeForCausalLM") | {"hidden_act": "silu"} | biases(h)
    found = experts(h, hidden="intermediate_size", default=config["intermediate_size"], renormalized=False)
    return config | found | {"norm_topk_prob": False}
