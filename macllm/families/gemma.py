"""Gemma 1 and 2, and Gemma 3's text part."""

from dataclasses import replace
from typing import Any

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import less, standard
from macllm.families.registry import family
from macllm.spec import MLP, Attention, Layer, ModelSpec, QKNorm


@family("gemma")
def gemma(c: Config) -> ModelSpec:
    """Gemma (arXiv 2403.08295): Llama with a scaled embedding and a gated GELU."""
    c.where_missing(head_dim=256, num_key_value_heads=16)
    c.only("use_bidirectional_attention", [False], False)
    bias = c.flag("attention_bias")
    channel = _mlp(c, "gelu_pytorch_tanh", "gelu")  # the first release says "gelu" and means its tanh form
    layer = Layer(attention(c, bias=bias, out_bias=bias), channel, norm=rms_norm(c))
    return _model(c, [layer] * c.integer("num_hidden_layers"))


@family("gemma2")
def gemma2(c: Config) -> ModelSpec:
    """Gemma 2 (arXiv 2408.00118): sandwich norms, every other layer sliding, scores and logits capped."""
    c.where_missing(
        head_dim=256,
        num_key_value_heads=4,
        sliding_window=4096,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    )
    c.only("use_bidirectional_attention", [False], False)
    full = replace(_attention(c), softcap=_cap(c, "attn_logit_softcapping"))
    kinds = kinds_of_layers(c, every=2)
    return _model(
        c,
        _layers(c, kinds, full, replace(full, window=c.integer("sliding_window"))),
        logit_cap=_cap(c, "final_logit_softcapping"),
        needs_bfloat16_range=True,
    )


@family("gemma3_text")
def gemma3_text(c: Config) -> ModelSpec:
    """Gemma 3 (text): sandwich norms, norms on q and k, five sliding layers to a full one, two rope bases."""
    c.where_missing(head_dim=256, num_key_value_heads=4, sliding_window=4096)
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if c.get(key) is not None:
            raise c.unsupported(key, c.get(key), "none")
    c.only("use_bidirectional_attention", [False], False)
    base = _attention(c, qk_norm=QKNorm(rms_norm(c)), rope=None)
    sliding, full = two_ropes(c, base)
    kinds = kinds_of_layers(c, every=c.integer("sliding_window_pattern", 6))
    return _model(c, _layers(c, kinds, full, sliding), needs_bfloat16_range=True)


def _attention(c: Config, **fields: Any) -> Attention:
    """Attention whose scores are scaled by a width of the config's own."""
    bias = c.flag("attention_bias")
    scale = c.number("query_pre_attn_scalar", 256) ** -0.5
    return replace(attention(c, bias=bias, out_bias=bias, **fields), scale=scale)


def _cap(c: Config, key: str) -> float | None:
    return c.number(key) if c.get(key) is not None else None


def two_ropes(c: Config, base: Attention) -> tuple[Attention, Attention]:
    """Sliding and full attention like ``base``, each with a rope of its own; ``rope_scaling`` is for the full ones."""
    theta, local_theta = c.number("rope_theta", 1_000_000.0), c.number("rope_local_base_freq", 10_000.0)
    local = c.rope(base.head_dim, base=local_theta, kind="sliding_attention")
    if not c.mapping("rope_parameters"):
        local = replace(local, scaling=None)
    full = replace(base, rope=c.rope(base.head_dim, base=theta, kind="full_attention"))
    return replace(base, rope=local, window=c.integer("sliding_window")), full


def kinds_of_layers(c: Config, every: int) -> list[str]:
    """The kind of each layer: without ``layer_types``, one of ``every`` is full and the others slide."""
    count = c.integer("num_hidden_layers")
    return layer_kinds(
        c, ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    )


def _mlp(c: Config, *names: str) -> MLP:
    """Gated, with the tanh form of GELU, by whichever of its ``names`` and under whichever key."""
    c.only("hidden_act", names, names[0])
    return replace(mlp(c, activation_key="hidden_activation", expected=names), activation="gelu_tanh")


def _layers(c: Config, kinds: list[str], full: Attention, sliding: Attention) -> list[Layer]:
    channel, norm = _mlp(c, "gelu_pytorch_tanh"), rms_norm(c)
    return [
        Layer(sliding if kind == "sliding_attention" else full, channel, "sandwich", norm) for kind in kinds
    ]


def _model(c: Config, layers: list[Layer], **fields: Any) -> ModelSpec:
    """Tied, the embedding scaled, norms stored less 1."""
    return model(
        c,
        layers,
        tied=True,
        embed_scale=c.integer("hidden_size") ** 0.5,
        table=less(standard(layers[0].placement), 1.0),
        **fields,
    )
