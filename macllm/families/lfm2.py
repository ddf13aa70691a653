"""LFM2, dense and with experts."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import Table, convolutions, either, experts, renamed
from macllm.families.registry import family
from macllm.spec import Channel, Layer, ModelSpec, QKNorm, ShortConv

_LAYER = "model.layers.{i}."
_FORWARD = f"{_LAYER}feed_forward."
_NAMES = renamed(
    {
        "norm": "model.embedding_norm",
        "layers.{i}.mixer_norm": f"{_LAYER}operator_norm",
        "layers.{i}.channel_norm": f"{_LAYER}ffn_norm",
        "layers.{i}.mixer.q_norm": f"{_LAYER}self_attn.q_layernorm",
        "layers.{i}.mixer.k_norm": f"{_LAYER}self_attn.k_layernorm",
        "layers.{i}.mixer.o": f"{_LAYER}self_attn.out_proj",
        "layers.{i}.mixer.input": f"{_LAYER}conv.in_proj",
        "layers.{i}.mixer.output": f"{_LAYER}conv.out_proj",
    }
) | convolutions({"layers.{i}.mixer.conv": f"{_LAYER}conv.conv"})
_DENSE = renamed(
    {
        f"layers.{{i}}.channel.{key}": f"{_FORWARD}{name}"
        for key, name in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
    }
)
_EXPERTS = (
    either(
        _DENSE,
        renamed({f"layers.{{i}}.channel.{key}": f"{_FORWARD}{key}_proj" for key in ("gate", "up", "down")}),
    )
    | experts(
        f"{_FORWARD}experts.{{e}}.{{name}}",
        f"{_FORWARD}switch_mlp.{{name}}_proj",
        {"gate": "w1", "up": "w3", "down": "w2"},
    )
    | renamed(
        {
            "layers.{i}.channel.router": f"{_FORWARD}gate",
            "layers.{i}.channel.correction": f"{_FORWARD}expert_bias",
        }
    )
)


@family("lfm2")
def lfm2(c: Config) -> ModelSpec:
    """LFM2: short convolutions, and attention in a few layers."""
    dim, count = c.integer("hidden_size"), c.integer("num_hidden_layers")
    for key in ("block_dim", "conv_dim", "conv_dim_out"):
        c.only(key, [dim], dim)
    for key in ("block_use_swiglu", "use_pos_enc"):
        c.only(key, [True], True)
    c.only("num_heads", [c.integer("num_attention_heads")], c.integer("num_attention_heads"))
    c.only("block_norm_eps", [c.number("norm_eps", 1e-5)], c.number("norm_eps", 1e-5))
    for key in (
        "block_mlp_init_scale",
        "block_out_init_scale",
        "block_use_xavier_init",
        "conv_use_xavier_init",
    ):
        c.get(key)  # how training began
    attended = c.get("full_attn_idxs", list(range(count)))
    kinds = ["full_attention" if index in attended else "conv" for index in range(count)]
    channel = mlp(c, hidden=_hidden(c))
    return _model(c, kinds, [channel] * count, _DENSE)


@family("lfm2_moe")
def lfm2_moe(c: Config) -> ModelSpec:
    """LFM2 with experts, chosen by sigmoid, from the third layer on."""
    count, dense = c.integer("num_hidden_layers"), c.integer("num_dense_layers", 2, low=0)
    channel = replace(
        moe(c, score="sigmoid", correction=c.flag("use_expert_bias", True)),
        renormalize=c.flag("norm_topk_prob", True),
        weight_scale=c.number("routed_scaling_factor", 1.0),
    )
    channels: list[Channel] = [mlp(c) if index < dense else channel for index in range(count)]
    return _model(c, ["full_attention"] * count, channels, _EXPERTS)


def _model(c: Config, default: list[str], channels: list[Channel], table: Table) -> ModelSpec:
    """Layers by ``layer_types``, or else by their default kinds."""
    c.where_missing(rope_theta=1_000_000.0, num_key_value_heads=8)
    norm = rms_norm(c, "norm_eps", 1e-5)
    full = attention(c, qk_norm=QKNorm(norm))
    conv = ShortConv(full.dim, c.integer("conv_L_cache", 3, low=2), c.flag("conv_bias"))
    kinds = layer_kinds(c, default, ("full_attention", "conv"))
    layers = [
        Layer(conv if kind == "conv" else full, channel, norm=norm)
        for kind, channel in zip(kinds, channels, strict=True)
    ]
    return model(c, layers, norm=norm, tied=c.flag("tie_embedding", True), table=table | _NAMES)


def _hidden(c: Config) -> int:
    """Hidden units of the feed-forward block: as stated, or two thirds of it times a factor, rounded up."""
    hidden = c.integer("block_ff_dim", c.get("intermediate_size", 12288))
    factor, multiple = c.number("block_ffn_dim_multiplier", 1.0), c.integer("block_multiple_of", 256)
    if not c.flag("block_auto_adjust_ff_dim", True):
        return hidden
    return -(-int(factor * int(2 * hidden / 3)) // multiple) * multiple
