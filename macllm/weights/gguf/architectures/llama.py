"""Llama, and what llama.cpp runs as Llama: Mistral, Mixtral, SmolLM2."""

from macllm.spec import ModelSpec
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import paired_heads
from macllm.weights.gguf.registry import Metadata, architecture, one_window, without
from macllm.weights.gguf.standard import biases, standard, window


def _write(spec: ModelSpec, keys: Metadata) -> Metadata:
    """Experts are as wide as the key of dense models says, and a softmax of the chosen weighs them."""
    return without(
        one_window(keys), "expert_feed_forward_length", "expert_gating_func", "expert_weights_norm"
    )


@architecture("llama", "llama", "mistral", "mixtral", write=_write, layout=paired_heads)
def llama(h: Header) -> Config:
    """The rows of q and k lie with the halves of each head interleaved, for a rotation of neighbours."""
    config = standard(h, "llama", "LlamaForCausalLM") | {"hidden_act": "silu"} | biases(h)
    sliding = window(h, config["max_position_embeddings"])
    if h.get("expert_count"):
        return config | _mixtral(h, sliding)
    if sliding is None:
        return config
    # Mistral 7B v0.1; Hugging Face's llama has no such key
    return config | {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": sliding,
    }


def _mixtral(h: Header, sliding: int | None) -> Config:
    return {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": h.integer("expert_count"),
        "num_experts_per_tok": h.integer("expert_used_count"),
        "sliding_window": sliding,
    }
