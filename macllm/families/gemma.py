"""Gemma 3, text."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model
from macllm.families.config import Config
from macllm.spec import Layer, ModelSpec


def gemma3_text(c: Config) -> ModelSpec:
    """Gemma 3 (text): sandwich norms, norms on q and k, five sliding layers to a full one, two rope bases."""
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if c.get(key) is not None:
            raise c.unsupported(key, c.get(key), "none")
    c.only("use_bidirectional_attention", [False], False)
    bias = c.flag("attention_bias")
    scale = c.number("query_pre_attn_scalar", 256) ** -0.5
    base = replace(attention(c, bias=bias, out_bias=bias, qk_norm=True), scale=scale)
    local_base = c.number("rope_local_base_freq", 10_000.0)
    local = c.rope(base.head_dim, base=local_base, kind="sliding_attention")
    if c.get("rope_parameters") is None:  # the local layers are never scaled and have a base of their own
        local = replace(local, base=local_base, scaling=None)
    full = replace(base, rope=c.rope(base.head_dim, base=1_000_000.0, kind="full_attention"))
    sliding = replace(base, rope=local, window=c.integer("sliding_window", 4096))
    count, every = c.integer("num_hidden_layers"), c.integer("sliding_window_pattern", 6)
    kinds = layer_kinds(
        c, ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    )
    channel = mlp(c, activation_key="hidden_activation", expected="gelu_pytorch_tanh")
    c.only("hidden_act", ["gelu_pytorch_tanh"], "gelu_pytorch_tanh")
    layers = [Layer(sliding if kind == "sliding_attention" else full, channel, "sandwich") for kind in kinds]
    return model(
        c,
        layers,
        tied=True,
        embed_scale=c.integer("hidden_size") ** 0.5,
        norm_offset=1.0,
        needs_bfloat16_range=True,
    )
