"""BitNet b1.58."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec

_NAMES = renamed(
    {
        "layers.{i}.mixer.out_norm": "model.layers.{i}.self_attn.attn_sub_norm",
        "layers.{i}.channel.down_norm": "model.layers.{i}.mlp.ffn_sub_norm",
    }
)


@family("bitnet")
def bitnet(c: Config) -> ModelSpec:
    """BitNet b1.58 2B4T (arXiv 2504.12285): gated squared relu, a norm more in each block.

    That weights are ternary and inputs rounded is the checkpoint's affair.
    """
    c.where_missing(num_key_value_heads=5, rope_theta=500_000.0)
    bias, norm = c.flag("attention_bias"), rms_norm(c, default=1e-5)
    mixer = replace(attention(c, bias=bias, out_bias=bias), out_norm=norm)
    channel = replace(mlp(c, expected="relu2"), down_norm=norm)
    return model(
        c,
        [Layer(mixer, channel, norm=norm)] * c.integer("num_hidden_layers"),
        table=_NAMES,
        needs_bfloat16_range=True,  # the square of a hidden value times another
    )
