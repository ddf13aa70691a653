"""Gemma 3, text."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import less, standard
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm


@family("gemma3_text")
def gemma3_text(c: Config) -> ModelSpec:
    """Gemma 3 (text): sandwich norms, norms on q and k, five sliding layers to a full one, two rope bases."""
    c.where_missing(head_dim=256, num_key_value_heads=4, sliding_window=4096)
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if c.get(key) is not None:
            raise c.unsupported(key, c.get(key), "none")
    c.only("use_bidirectional_attention", [False], False)
    bias = c.flag("attention_bias")
    scale = c.number("query_pre_attn_scalar", 256) ** -0.5
    base = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(rms_norm(c)))
    theta, local_theta = c.number("rope_theta", 1_000_000.0), c.number("rope_local_base_freq", 10_000.0)
    local = c.rope(base.head_dim, base=local_theta, kind="sliding_attention")
    if not c.mapping("rope_parameters"):  # rope_scaling is for the full layers only
        local = replace(local, scaling=None)
    full = replace(base, scale=scale, rope=c.rope(base.head_dim, base=theta, kind="full_attention"))
    sliding = replace(full, rope=local, window=c.integer("sliding_window"))
    count, every = c.integer("num_hidden_layers"), c.integer("sliding_window_pattern", 6)
    kinds = layer_kinds(
        c, ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    )
    channel = mlp(c, activation_key="hidden_activation", expected="gelu_pytorch_tanh")
    c.only("hidden_act", ["gelu_pytorch_tanh"], "gelu_pytorch_tanh")
    layers = [Layer(sliding if kind == "sliding_attention" else full, channel, "sandwich", rms_norm(c)) for kind in kinds]
    return model(
        c,
        layers,
        tied=True,
        embed_scale=c.integer("hidden_size") ** 0.5,
        table=less(standard("sandwich"), 1.0),
        needs_bfloat16_range=True,
    )
