"""ERNIE 4.5 with experts."""

from macllm.families.blocks import attention, mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.deepseek import SHARED_NAMES
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec
from macllm.spec.names import Absent, Entry, Squeezed

_NAMES = SHARED_NAMES | {
    "layers.{i}.channel.correction": (
        Entry("model.layers.{i}.mlp.moe_statics.e_score_correction_bias", (Squeezed(0),)),
        Entry("", (Absent(),)),  # mlx-lm's class leaves it out
    )
}
_INERT = ("moe_capacity", "moe_use_aux_free", "num_nextn_predict_layers")  # of training


@family("ernie4_5_moe")
def ernie4_5_moe(c: Config) -> ModelSpec:
    """ERNIE 4.5 with experts, text: a rope that turns neighbours, experts in a stretch of the layers."""
    c.also_named(num_experts="moe_num_experts", num_experts_per_tok="moe_k")
    c.where_missing(num_key_value_heads=4, rope_theta=500_000.0)
    c.only("moe_gate_act", ["softmax"], "softmax")
    c.only("moe_norm_min", [1e-12], 1e-12)
    c.only("use_rmsnorm", [True], True)
    for key in _INERT:
        c.get(key)
    bias, norm = c.flag("use_bias"), rms_norm(c, default=1e-5)
    mixer = attention(c, bias=bias, out_bias=bias, interleaved=True)
    hidden, beside = c.integer("moe_intermediate_size"), c.integer("moe_num_shared_experts", 2, low=0)
    experts = moe(
        c,
        correction=True,
        renormalize=True,
        shared=mlp(c, hidden=hidden * beside, bias=bias) if beside else None,
    )
    dense = mlp(c, bias=bias)
    layers = [Layer(mixer, experts if sparse else dense, norm=norm) for sparse in _sparse(c)]
    return model(c, layers, tied=True, table=_NAMES, ignored=(r"model\.mtp_.*",), head_bias=bias)


def _sparse(c: Config) -> list[bool]:
    """Which layers have experts."""
    count, every = c.integer("num_hidden_layers"), c.integer("moe_layer_interval", 1)
    first, last = c.integer("moe_layer_start_index", 1, low=0), c.integer("moe_layer_end_index", -1, low=-1)
    return [first <= i and (last == -1 or i <= last) and (i + 1) % every == 0 for i in range(count)]
