"""OLMo 2 and 3."""

from dataclasses import replace
from typing import Any

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Attention, Layer, ModelSpec, QKNorm


@family("olmo2")
def olmo2(c: Config) -> ModelSpec:
    """OLMo 2 (arXiv 2501.00656): norms after each block, and over all heads of q and k together."""
    layer = Layer(_attention(c), mlp(c), "post", rms_norm(c, default=1e-5))
    return model(c, [layer] * c.integer("num_hidden_layers"))


@family("olmo3")
def olmo3(c: Config) -> ModelSpec:
    """OLMo 3 (arXiv 2512.13961): three sliding layers to a full one; only the full ones have a scaled rope."""
    c.where_missing(sliding_window=4096)
    base, theta = _attention(c, rope=None), c.number("rope_theta", 500_000.0)
    local = c.rope(base.head_dim, base=c.number("rope_local_base_freq", theta), kind="sliding_attention")
    if not c.mapping("rope_parameters"):  # rope_scaling is for the full layers only
        local = replace(local, scaling=None)
    full = replace(base, rope=c.rope(base.head_dim, base=theta, kind="full_attention"))
    count = c.integer("num_hidden_layers")
    kinds = layer_kinds(c, ["sliding_attention" if (i + 1) % 4 else "full_attention" for i in range(count)])
    channel, norm = mlp(c), rms_norm(c, default=1e-5)
    sliding = full
    if "sliding_attention" in kinds:
        sliding = replace(base, rope=local, window=c.integer("sliding_window"))
    c.get("sliding_window")
    return model(
        c, [Layer(sliding if kind == "sliding_attention" else full, channel, "post", norm) for kind in kinds]
    )


def _attention(c: Config, **fields: Any) -> Attention:
    bias = c.flag("attention_bias")
    norm = QKNorm(rms_norm(c, default=1e-5), over="all")
    return attention(c, bias=bias, out_bias=bias, qk_norm=norm, **fields)
