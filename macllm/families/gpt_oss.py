"""gpt-oss."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import Table, alternatives, either, renamed, stacked_experts, whole_experts
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec

_CONTEXT = 4096  # before YaRN
_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": _CONTEXT,
}
_EXPERTS = "model.layers.{i}.mlp.experts"


@family("gpt_oss")
def gpt_oss(c: Config) -> ModelSpec:
    """gpt-oss (arXiv 2508.10925): clamped experts with biases, sinks, alternate windows."""
    c.where_missing(
        num_key_value_heads=8, head_dim=64, sliding_window=128, rope_theta=150_000.0, rope_parameters=_YARN
    )
    c.only("swiglu_alpha", [1.702], 1.702)
    c.only("swiglu_limit", [7.0], 7.0)
    for key in ("initial_context_length", "experts_per_token"):
        c.get(key)  # said again in rope_scaling and num_experts_per_tok
    bias = c.flag("attention_bias", True)
    full = replace(attention(c, bias=bias, out_bias=bias), sinks=True)
    sliding = replace(full, window=c.integer("sliding_window"))
    experts = moe(
        c,
        experts_key="num_local_experts",
        hidden_key="intermediate_size",
        score="softmax_chosen",
        router_bias=True,
        bias=True,
    )
    experts = replace(experts, activation="clamped_swiglu")
    count = c.integer("num_hidden_layers")
    kinds = layer_kinds(c, ["full_attention" if i % 2 else "sliding_attention" for i in range(count)])
    norm = rms_norm(c, default=1e-5)
    layers = [Layer(sliding if kind == "sliding_attention" else full, experts, norm=norm) for kind in kinds]
    return model(c, layers, table=_names(experts.hidden))


def _names(hidden: int) -> Table:
    """Rows of gate and up in turns, transposed where they are plain; published in MXFP4, as blocks and scales."""
    hub = alternatives(
        whole_experts(_EXPERTS, groups=hidden),
        whole_experts(_EXPERTS, suffix="_blocks", groups=hidden, before=()),
        whole_experts(_EXPERTS, kind="bias", suffix="_bias", groups=hidden, before=()),
    )
    mlx = stacked_experts(_EXPERTS) | stacked_experts(_EXPERTS, "bias")
    return renamed({"layers.{i}.channel.router": "model.layers.{i}.mlp.router"}) | either(hub, mlx)
