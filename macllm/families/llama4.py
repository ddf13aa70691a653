"""Llama 4, text, and MobileLLM-R1, which has its attention."""

from dataclasses import replace
from typing import Any

from macllm.families.blocks import attention, layer_kinds, mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import either, renamed, stacked_experts, whole_experts
from macllm.families.registry import family
from macllm.spec import Attention, Channel, InputScaledMoE, Layer, ModelSpec, Norm, QKNorm, QueryScale

_FORWARD = "model.layers.{i}.feed_forward."
_PARTS = ("gate", "up", "down")
_NAMES = (
    renamed({f"layers.{{i}}.channel.{name}": f"{_FORWARD}{name}_proj" for name in _PARTS})
    | renamed(
        {f"layers.{{i}}.channel.shared.{name}": f"{_FORWARD}shared_expert.{name}_proj" for name in _PARTS}
    )
    | renamed({"layers.{i}.channel.router": f"{_FORWARD}router"})
    | either(whole_experts(f"{_FORWARD}experts"), stacked_experts(f"{_FORWARD}experts"))
    | either(renamed({"head": "lm_head"}), renamed({"head": "output"}))
)


@family("llama4_text")
def llama4_text(c: Config) -> ModelSpec:
    """Llama 4: three layers of chunked attention to a full one without positions, experts fed by their weight."""
    c.where_missing(num_key_value_heads=8, head_dim=128, rope_theta=500_000.0, attention_chunk_size=8192)
    c.get("router_jitter_noise")  # training only
    norm = rms_norm(c, default=1e-5)
    channels = _channels(c)
    layers = [Layer(mixer, channel, norm=norm) for mixer, channel in zip(_mixers(c), channels, strict=True)]
    return model(c, layers, table=_NAMES)


def _mixers(c: Config) -> list[Attention]:
    count, bias = c.integer("num_hidden_layers"), c.flag("attention_bias")
    every = c.integer("no_rope_layer_interval", 4)
    turning = _listed(c, "no_rope_layers") or [int((i + 1) % every != 0) for i in range(count)]
    if len(turning) != count:
        raise c.unsupported("no_rope_layers", turning, f"{count} entries, one a layer")
    chunk = c.integer("attention_chunk_size") if c.get("attention_chunk_size") is not None else None
    default = ["chunked_attention" if turns and chunk is not None else "full_attention" for turns in turning]
    kinds = layer_kinds(c, default, ("full_attention", "chunked_attention"))
    base = attention(c, bias=bias, out_bias=bias, interleaved=True)
    if c.flag("use_qk_norm", True):
        base = replace(
            base, qk_norm=QKNorm(Norm("rms", c.number("rms_norm_eps", 1e-5), weight=False), after_rope=True)
        )
    still = replace(base, rope=None, qk_norm=None)
    tuning = c.only("attn_temperature_tuning", [True, False, 4], True)  # 4: how the first configs say yes
    scale = QueryScale(c.number("attn_scale", 0.1), c.integer("floor_scale", 8192), first=1)
    if tuning:
        still = replace(still, query_scale=scale)
    return [
        replace(base if turns else still, chunk=chunk if kind == "chunked_attention" else None)
        for turns, kind in zip(turning, kinds, strict=True)
    ]


def _channels(c: Config) -> list[Channel]:
    """Experts in the layers named, or in every so manieth; the dense layers have a width of their own."""
    count, sparse = c.integer("num_hidden_layers"), c.get("moe_layers")
    if sparse is None:
        step = c.integer("interleave_moe_layer_step", 1)
        sparse = range(step - 1, count, step)
    else:
        c.get("interleave_moe_layer_step")
        sparse = _listed(c, "moe_layers")
    for key in ("num_local_experts", "num_experts_per_tok", "output_router_logits", "intermediate_size"):
        c.get(key)  # stays in the file of a model without experts
    dense = mlp(c, hidden=c.integer("intermediate_size_mlp", 16384))
    if not sparse:
        return [dense] * count
    experts = moe(
        c,
        InputScaledMoE,
        experts_key="num_local_experts",
        hidden_key="intermediate_size",
        score="sigmoid",
        shared=mlp(c),
    )
    return [experts if index in sparse else dense for index in range(count)]


def _listed(c: Config, key: str) -> list[Any]:
    values = c.get(key, [])
    if not isinstance(values, list):
        raise c.unsupported(key, values, "a list of whole numbers")
    return values
