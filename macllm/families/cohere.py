"""Cohere's Command R, R+, R7B and A, and Aya."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, layer_norm, mlp, model
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm


@family("cohere")
def cohere(c: Config) -> ModelSpec:
    """Command R: attention and MLP side by side on one LayerNorm, neighbours turn, logits are scaled down."""
    c.where_missing(rope_theta=500_000.0)
    c.get("model_max_length")  # what the server allows
    norm, bias = layer_norm(c, "layer_norm_eps", bias=c.flag("layer_norm_bias")), c.flag("attention_bias")
    qk_norm = QKNorm(replace(norm, bias=False), over="heads") if c.flag("use_qk_norm") else None
    mixer = attention(c, bias=bias, out_bias=bias, qk_norm=qk_norm, interleaved=True)
    layers = [Layer(mixer, mlp(c), "parallel", norm)] * c.integer("num_hidden_layers")
    return model(c, layers, tied=True, logit_scale=c.number("logit_scale", 0.0625))


@family("cohere2")
def cohere2(c: Config) -> ModelSpec:
    """Command R7B and A: Command R with three sliding layers to a full one, which has no positions."""
    c.where_missing(sliding_window=4096)
    for key, value in _FIXED.items():
        c.only(key, [value], value)
    c.get("layer_switch")  # says again what sliding_window_pattern does
    norm, bias = layer_norm(c, "layer_norm_eps", bias=c.flag("layer_norm_bias")), c.flag("attention_bias")
    dim, heads = c.integer("hidden_size"), c.integer("num_attention_heads")
    c.only("head_dim", [dim // heads], dim // heads)
    sliding = replace(
        attention(c, bias=bias, out_bias=bias, interleaved=True), window=c.integer("sliding_window")
    )
    full = replace(sliding, rope=None, window=None)
    count, every = c.integer("num_hidden_layers"), c.integer("sliding_window_pattern", 4)
    kinds = layer_kinds(
        c, ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    )
    channel = mlp(c)
    layers = [
        Layer(sliding if kind == "sliding_attention" else full, channel, "parallel", norm) for kind in kinds
    ]
    return model(c, layers, tied=True, logit_scale=c.number("logit_scale", 0.0625))


# What Cohere's own implementation could do otherwise.
_FIXED = {
    "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_embedding_sharing": True,
    "use_gated_activation": True,
    "use_parallel_block": True,
    "use_parallel_embedding": True,
    "use_qk_norm": False,
}
