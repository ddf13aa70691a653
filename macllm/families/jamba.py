"""Jamba."""

from macllm.families.blocks import attention, mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.mamba import mamba_names, read_harmless, step_rank
from macllm.families.names import experts, renamed
from macllm.families.registry import family
from macllm.spec import Layer, Mamba, ModelSpec

_LAYER = "model.layers.{i}."
_NAMES = renamed(
    {
        "norm": "model.final_layernorm",
        "layers.{i}.channel_norm": f"{_LAYER}pre_ff_layernorm",
        "layers.{i}.channel.router": f"{_LAYER}feed_forward.router",
        **{
            f"layers.{{i}}.channel.{name}": f"{_LAYER}feed_forward.{name}_proj"
            for name in ("gate", "up", "down")
        },
    }
) | experts(
    f"{_LAYER}feed_forward.experts.{{e}}.{{name}}_proj", f"{_LAYER}feed_forward.switch_mlp.{{name}}_proj"
)


@family("jamba")
def jamba(c: Config) -> ModelSpec:
    """Jamba (Lieber et al. 2024, arXiv 2403.19887): an attention layer without positions to several of Mamba.

    Feed-forward and experts take turns. Time steps, B and C are normalized.
    """
    c.where_missing(num_key_value_heads=8, num_experts=16, num_experts_per_tok=2)
    for key in ("calc_logits_for_entire_prompt", "n_ctx"):
        c.get(key)
    read_harmless(c)
    c.only("mamba_inner_layernorms", [True], True)
    norm, bias = rms_norm(c), c.flag("mamba_proj_bias")
    attentive = attention(c, rope=None)
    recurrent = Mamba(
        attentive.dim,
        c.integer("mamba_expand", 2) * attentive.dim,
        c.integer("mamba_d_state", 16),
        step_rank(c, "mamba_dt_rank"),
        c.integer("mamba_d_conv", 4),
        bias,
        c.flag("mamba_conv_bias", True),
        norm,
    )
    count = c.integer("num_hidden_layers")
    attends = _periodic(c, "attn_layer_period", 8, "attn_layer_offset", 4, count)
    mixes = _periodic(c, "expert_layer_period", 2, "expert_layer_offset", 1, count)
    dense = mlp(c)
    sparse = moe(c, hidden_key="intermediate_size") if c.integer("num_experts") > 1 else dense
    for key in ("num_experts_per_tok", "output_router_logits"):
        c.get(key)  # stay in the file of a model without experts
    layers = [
        Layer(attentive if attend else recurrent, sparse if mix else dense, norm=norm)
        for attend, mix in zip(attends, mixes, strict=True)
    ]
    return model(c, layers, table=_NAMES | mamba_names(f"{_LAYER}mamba.", recurrent))


def _periodic(c: Config, period: str, every: int, offset: str, first: int, count: int) -> list[bool]:
    """Which layers are the ``first`` of each ``every``."""
    every, first = c.integer(period, every), c.integer(offset, first, low=0)
    if first >= every:
        raise c.unsupported(offset, first, f"less than {period}={every}")
    return [index % every == first for index in range(count)]
