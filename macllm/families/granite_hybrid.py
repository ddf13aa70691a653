"""Granite 4."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.mamba import hybrid_mamba2, mamba_names
from macllm.families.names import Table, either, fused, renamed
from macllm.families.registry import family
from macllm.spec import Channel, Layer, ModelSpec

_LAYER = "model.layers.{i}."
_MOE = f"{_LAYER}block_sparse_moe."
_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}  # as older configs have it


@family("granitemoehybrid")
def granite_hybrid(c: Config) -> ModelSpec:
    """Granite 4: layers of attention or Mamba 2, then experts beside a feed-forward block, or that alone.

    What its multipliers are for: muP (Yang et al. 2022, arXiv 2203.03466).
    """
    for key in ("init_method", "rope_theta", "rope_scaling", "rope_parameters"):
        c.get(key)  # stays in the file of a model without positions
    c.only("normalization_function", ["rmsnorm"], "rmsnorm")
    norm, bias, dim = rms_norm(c), c.flag("attention_bias"), c.integer("hidden_size")
    positions = c.only("position_embedding_type", [None, "nope", "rope"]) == "rope"
    attentive = attention(c, bias=bias, out_bias=bias, rope="stated" if positions else None)
    attentive = replace(attentive, scale=c.number("attention_multiplier", 1.0))
    recurrent = hybrid_mamba2(c, c.integer("mamba_expand", 2) * dim, norm)
    shared = mlp(c, hidden=c.integer("shared_intermediate_size", 1024))
    for key in ("num_experts_per_tok", "intermediate_size", "output_router_logits"):
        c.get(key)  # stays in the file of a model without experts
    c.where_missing(num_local_experts=8, num_experts_per_tok=2)
    sparse = c.integer("num_local_experts", low=0) > 0
    channel: Channel = shared
    if sparse:
        channel = moe(
            c,
            experts_key="num_local_experts",
            hidden_key="intermediate_size",
            score="softmax_chosen",
            shared=shared,
        )
    scale = c.number("residual_multiplier", 1.0)
    layers = [
        Layer(attentive if kind == "full_attention" else recurrent, channel, norm=norm, residual_scale=scale)
        for kind in _kinds(c)
    ]
    return model(
        c,
        layers,
        table=(sparse_names() if sparse else _dense_names()) | mamba_names(f"{_LAYER}mamba.", recurrent),
        embed_scale=c.number("embedding_multiplier", 1.0),
        logit_scale=1 / c.number("logits_scaling", 1.0),
    )


def _kinds(c: Config) -> list[str]:
    default = ["linear_attention"] * c.integer("num_hidden_layers")
    kinds = layer_kinds(c, default, (*_KINDS, *_KINDS.values()))
    return [_KINDS.get(kind, kind) for kind in kinds]


def _gated(stored: str, key: str) -> Table:
    """A gated feed-forward block, or one of each expert: both halves of its input one above the other."""
    return fused(f"{stored}input_linear", f"{key}gate", f"{key}up") | renamed(
        {f"{key}down": f"{stored}output_linear"}
    )


def sparse_names() -> Table:
    key = "layers.{i}.channel."
    words = {f"{key}experts.{name}": f"{_MOE}switch_mlp.{name}_proj" for name in ("gate", "up", "down")}
    return (
        renamed({f"{key}router": f"{_MOE}router.layer"})
        | _gated(f"{_LAYER}shared_mlp.", f"{key}shared.")
        | either(_gated(_MOE, f"{key}experts."), renamed(words))
    )


def _dense_names() -> Table:
    key = "layers.{i}.channel."
    words = {f"{key}{name}": f"{_LAYER}mlp.{name}_proj" for name in ("gate", "up", "down")}
    return either(_gated(f"{_LAYER}shared_mlp.", key), renamed(words))
