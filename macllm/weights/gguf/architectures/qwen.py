"""Qwen."""

from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import architecture
from macllm.weights.gguf.standard import biases, no_window, standard


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
