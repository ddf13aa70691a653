"""Dense models of the Llama kind that llama.cpp gives an architecture of their own."""

from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import late_norm, paired_heads
from macllm.weights.gguf.registry import architecture
from macllm.weights.gguf.standard import biases, layer_types, no_window, standard

_OLMO3_EVERY, _SMOLLM3_EVERY, _EXAONE4_EVERY = 4, 4, 4


@architecture("olmo2", "olmo2", "olmo3")
def olmo2(h: Header) -> Config:
    """OLMo 2, and with a sliding window OLMo 3, whose sliding layers are never scaled."""
    config = standard(h, "olmo2", "Olmo2ForCausalLM") | {"hidden_act": "silu"} | biases(h)
    if not h.get("attention.sliding_window"):
        return config
    local = h.number("rope.freq_base_swa", config["rope_theta"])
    return (
        config
        | {"model_type": "olmo3", "architectures": ["Olmo3ForCausalLM"]}
        | ({"rope_local_base_freq": local} if local != config["rope_theta"] else {})
        | {
            "sliding_window": h.integer("attention.sliding_window"),
            "layer_types": layer_types(h, config["num_hidden_layers"], _OLMO3_EVERY),
        }
    )


@architecture("smollm3", "smollm3", layout=paired_heads)
def smollm3(h: Header) -> Config:
    """SmolLM3: every fourth layer has no positions."""
    config = standard(h, "smollm3", "SmolLM3ForCausalLM") | {"hidden_act": "silu"} | biases(h)
    no_window(h, config["max_position_embeddings"])
    return config | {"no_rope_layer_interval": _SMOLLM3_EVERY, "use_sliding_window": False}


@architecture("ernie4_5", "ernie4_5")
def ernie4_5(h: Header) -> Config:
    """ERNIE 4.5, dense."""
    config = standard(h, "ernie4_5", "Ernie4_5ForCausalLM") | {"hidden_act": "silu"}
    return config | {"use_bias": "blk.0.attn_q.bias" in h.tensors}


@architecture("seed_oss", "seed_oss", layout=late_norm)
def seed_oss(h: Header) -> Config:
    """Seed-OSS."""
    present = {
        "attention_bias": "blk.0.attn_q.bias",
        "attention_out_bias": "blk.0.attn_output.bias",
        "mlp_bias": "blk.0.ffn_up.bias",
    }
    config = standard(h, "seed_oss", "SeedOssForCausalLM") | {"hidden_act": "silu"}
    return config | {key: name in h.tensors for key, name in present.items()}


@architecture("hunyuan-dense", "hunyuan_v1_dense")
def hunyuan_dense(h: Header) -> Config:
    """Hunyuan V1, dense: the base comes with the scaling of its ``alpha`` applied."""
    config = standard(h, "hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM") | {"hidden_act": "silu"}
    return config | {"attention_bias": "blk.0.attn_q.bias" in h.tensors}


@architecture("exaone4", "exaone4")
def exaone4(h: Header) -> Config:
    """EXAONE 4: beside sliding layers, those that see everything have no positions."""
    config = standard(h, "exaone4", "Exaone4ForCausalLM") | {"hidden_act": "silu"}
    h.only("rope.freq_base_swa", config["rope_theta"])
    if not h.get("attention.sliding_window"):
        h.get("attention.sliding_window_pattern")
        return config | {"sliding_window": None, "sliding_window_pattern": None}
    kinds = layer_types(h, config["num_hidden_layers"], _EXAONE4_EVERY)
    return config | {"sliding_window": h.integer("attention.sliding_window"), "layer_types": kinds}


@architecture("arcee", "arcee", layout=paired_heads)
def arcee(h: Header) -> Config:
    """Arcee's foundation models."""
    return standard(h, "arcee", "ArceeForCausalLM") | {"hidden_act": "relu2"} | biases(h)
