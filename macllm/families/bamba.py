"""Bamba."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.mamba import hybrid_mamba2, mamba_names
from macllm.families.names import renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec

_LAYER = "model.layers.{i}."
_NAMES = renamed(
    {
        "norm": "model.final_layernorm",
        "layers.{i}.channel_norm": f"{_LAYER}pre_ff_layernorm",
        **{
            f"layers.{{i}}.channel.{name}": f"{_LAYER}feed_forward.{name}_proj"
            for name in ("gate", "up", "down")
        },
    }
)


@family("bamba")
def bamba(c: Config) -> ModelSpec:
    """Bamba (IBM, Princeton, CMU and UIUC 2024): Mamba 2, and a few layers of attention whose heads turn by half."""
    c.where_missing(num_key_value_heads=8)
    c.get("z_loss_coefficient")  # training only
    norm, bias = rms_norm(c, default=1e-5), c.flag("attention_bias")
    attentive = attention(c, bias=bias, out_bias=bias, partial=0.5)
    if attentive.rope is not None:
        c.only("attn_rotary_emb", [attentive.rope.dims], attentive.rope.dims)
    recurrent = hybrid_mamba2(c, c.integer("mamba_expand", 2) * attentive.dim, norm)
    count = c.integer("num_hidden_layers")
    attends = c.get("attn_layer_indices", [])
    if not isinstance(attends, list) or not set(attends) <= set(range(count)):
        raise c.unsupported("attn_layer_indices", attends, f"a list of layers, 0 to {count - 1}")
    channel = mlp(c, bias=c.flag("mlp_bias"))
    layers = [
        Layer(attentive if index in attends else recurrent, channel, norm=norm) for index in range(count)
    ]
    return model(c, layers, table=_NAMES | mamba_names(f"{_LAYER}mamba.", recurrent))
