"""Cohere: LayerNorm, both blocks side by side, a scale on logits."""

from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import architecture
from macllm.weights.gguf.standard import LAYER_NORM, layer_types, standard

_EVERY = 4  # of Command R7B's layers one sees everything, and has no positions


@architecture("command-r", "cohere")
def command_r(h: Header) -> Config:
    """Command R and R+, whose q and k are normalized head by head."""
    config = standard(h, "cohere", "CohereForCausalLM", norm=LAYER_NORM)
    return config | {
        "hidden_act": "silu",
        "tie_word_embeddings": True,  # llama.cpp looks for no other
        "logit_scale": h.number("logit_scale", 1.0),
        "use_qk_norm": "blk.0.attn_q_norm.weight" in h.tensors,
    }


@architecture("cohere2", "cohere2")
def cohere2(h: Header) -> Config:
    """Command R7B and A."""
    config = standard(h, "cohere2", "Cohere2ForCausalLM", norm=LAYER_NORM)
    h.only("rope.freq_base_swa", config["rope_theta"])
    return config | {
        "hidden_act": "silu",
        "tie_word_embeddings": True,  # llama.cpp looks for no other
        "logit_scale": h.number("logit_scale"),
        "sliding_window": h.integer("attention.sliding_window"),
        "layer_types": layer_types(h, config["num_hidden_layers"], _EVERY),
    }
