"""MiniMax M2."""

from macllm.families.blocks import attention, layer_kinds, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.mixtral import NAMES
from macllm.families.names import renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm

_NAMES = NAMES | renamed(
    {"layers.{i}.channel.correction": "model.layers.{i}.block_sparse_moe.e_score_correction_bias"}
)
_INERT = (  # of the series before, of training, and of modules that predict further tokens
    "mlp_intermediate_size mtp_transformer_layers num_mtp_modules use_mtp shared_moe_mode router_jitter_noise "
    "max_model_len"
).split()
_BETAS = ("layernorm_full_attention_beta", "layernorm_linear_attention_beta", "layernorm_mlp_beta")


@family("minimax_m2", "minimax")
def minimax_m2(c: Config) -> ModelSpec:
    """MiniMax-M2, whose first release was called ``minimax`` as the linear attention of the series before.

    Grouped queries normalized over all heads, of which a part turns; experts chosen by sigmoid.
    """
    c.where_missing(num_key_value_heads=8, head_dim=128, rope_theta=5_000_000.0)
    _refuse_older(c)
    for key in _INERT:
        c.get(key)
    head_dim = c.integer("head_dim")
    norm = rms_norm(c)
    turning = c.get("rotary_dim")
    mixer = attention(
        c,
        qk_norm=QKNorm(norm, "all"),
        partial=c.integer("rotary_dim") / head_dim if turning is not None else 1.0,
    )
    channel = moe(
        c,
        experts_key="num_local_experts",
        hidden_key="intermediate_size",
        score="sigmoid",
        correction=True,
        renormalize=True,
    )
    return model(c, [Layer(mixer, channel, norm=norm)] * c.integer("num_hidden_layers"), table=_NAMES)


def _refuse_older(c: Config) -> None:
    """Raises ConfigError for the architectures before M2, or a change of its own."""
    if 0 in c.get("attn_type_list", []):
        raise c.unsupported("attn_type_list", 0, "1 for every layer: no linear attention")
    layer_kinds(c, ["full_attention"] * c.integer("num_hidden_layers"), ("full_attention",))
    c.only("scoring_func", ["sigmoid"], "sigmoid" if c.family == "minimax_m2" else None)
    c.only("use_routing_bias", [True], True)
    c.only("use_qk_norm", [True], True)
    c.only("qk_norm_type", ["per_layer"], "per_layer")
    c.only("shared_intermediate_size", [0], 0)
    for key in _BETAS:
        c.only(key, [1.0], 1.0)
