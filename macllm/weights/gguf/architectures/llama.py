"""Llama, and what llama.cpp runs as Llama: Mistral, Mixtral, SmolLM2, InternLM 3; and Ministral 3."""

from macllm.spec import Attention, ModelSpec
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import paired_heads
from macllm.weights.gguf.registry import Metadata, architecture, one_window, without
from macllm.weights.gguf.standard import biases, standard, window


def _write(spec: ModelSpec, keys: Metadata) -> Metadata:
    """Experts are as wide as the key of dense models says, and a softmax of the chosen weighs them."""
    return without(
        one_window(keys), "expert_feed_forward_length", "expert_gating_func", "expert_weights_norm"
    )


@architecture("llama", "llama", "mistral", "mixtral", "internlm3", write=_write, layout=paired_heads)
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


def _write_mistral3(spec: ModelSpec, keys: Metadata) -> Metadata:
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, Attention)
    assert mixer.query_scale is not None
    keys |= {"attention.temperature_scale": mixer.query_scale.weight, "rope.scaling.yarn_log_multiplier": 1.0}
    # with both weights of the temperature at 1 it is 1, which is all that the keys can say
    return without(one_window(keys), "rope.scaling.yarn_attn_factor")


@architecture("mistral3", "ministral3", write=_write_mistral3, layout=paired_heads)
def mistral3(h: Header) -> Config:
    """Ministral 3: queries grow with their position."""
    config = standard(h, "ministral3", "Ministral3ForCausalLM") | {"hidden_act": "silu"}
    h.only("rope.scaling.yarn_log_multiplier", 1.0)
    config["rope_scaling"] = (config.get("rope_scaling") or {}) | {
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": h.number("attention.temperature_scale"),
    }
    return config | {"sliding_window": window(h, config["max_position_embeddings"])}
