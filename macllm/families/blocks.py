"""Blocks read from the config keys that most families share."""

from typing import Any

from macllm.families.config import LAYER_KINDS, Config
from macllm.spec import MLP, Activation, Attention, Layer, ModelSpec

_ACTIVATIONS: dict[str, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


def attention(c: Config, *, bias: bool = False, out_bias: bool = False, qk_norm: bool = False) -> Attention:
    """Full attention with rope over the whole head."""
    dim, heads = c.integer("hidden_size"), c.integer("num_attention_heads")
    if c.get("head_dim") is None and dim % heads:
        raise c.unsupported("num_attention_heads", heads, f"a divisor of hidden_size={dim}")
    head_dim = c.integer("head_dim", dim // heads, low=2)
    if head_dim % 2:
        raise c.unsupported("head_dim", head_dim, "an even number")
    kv_heads = c.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise c.unsupported("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads={heads}")
    return Attention(
        dim,
        heads,
        kv_heads,
        head_dim,
        scale=head_dim**-0.5,
        rope=c.rope(head_dim, base=c.number("rope_theta", 10_000.0)),
        bias=bias,
        out_bias=out_bias,
        qk_norm=qk_norm,
        norm_eps=c.number("rms_norm_eps", 1e-6),
    )


def mlp(c: Config, *, bias: bool = False, activation_key: str = "hidden_act", expected: str = "silu") -> MLP:
    """Gated feed-forward with the family's one activation."""
    name = c.only(activation_key, [expected], expected)
    return MLP(c.integer("hidden_size"), c.integer("intermediate_size"), _ACTIVATIONS[name], bias)


def model(c: Config, layers: list[Layer], *, tied: bool = False, **fields: Any) -> ModelSpec:
    """A ``ModelSpec`` from the keys every config has; ``tied`` is the family's default."""
    return ModelSpec(
        family=c.family,
        vocab=c.integer("vocab_size"),
        dim=c.integer("hidden_size"),
        layers=tuple(layers),
        max_context=c.integer("max_position_embeddings"),
        norm_eps=c.number("rms_norm_eps", 1e-6),
        tied=c.flag("tie_word_embeddings", tied),
        **fields,
    )


def layer_kinds(c: Config, default: list[str]) -> list[str]:
    """``layer_types``: one of ``full_attention`` and ``sliding_attention`` a layer."""
    kinds: list[str] = c.get("layer_types", default)
    if not isinstance(kinds, list) or len(kinds) != len(default):
        raise c.unsupported("layer_types", kinds, f"{len(default)} entries, one a layer")
    for kind in kinds:
        if kind not in LAYER_KINDS:
            raise c.unsupported("layer_types", kind, " or ".join(map(repr, LAYER_KINDS)))
    return kinds
