"""Blocks read from the config keys that most families share."""

from collections.abc import Sequence
from typing import Any, Literal

from macllm.families.config import LAYER_KINDS, Config
from macllm.families.names import Table, names, standard
from macllm.spec import MLP, Activation, Attention, DynamicScaling, Layer, ModelSpec, MoE, Norm, QKNorm, Rope

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "xielu": "xielu",
}


def rms_norm(c: Config, key: str = "rms_norm_eps", default: float = 1e-6) -> Norm:
    """RMSNorm with the config's epsilon."""
    return Norm("rms", c.number(key, default))


def layer_norm(c: Config, key: str, *, bias: bool = True) -> Norm:
    """LayerNorm with the config's epsilon."""
    return Norm("layer", c.number(key, 1e-5), bias=bias)


def attention(
    c: Config,
    *,
    bias: bool = False,
    out_bias: bool = False,
    qk_norm: QKNorm | None = None,
    partial: float | None = None,
    interleaved: bool = False,
    rope: Rope | Literal["stated"] | None = "stated",
) -> Attention:
    """Full attention with the rope ``stated`` in the config, where ``partial`` and ``interleaved`` are as in
    :meth:`Config.rope`, another one, or none.
    """
    dim, heads = c.integer("hidden_size"), c.integer("num_attention_heads")
    if c.get("head_dim") is None and dim % heads:
        raise c.unsupported("num_attention_heads", heads, f"a divisor of hidden_size={dim}")
    head_dim = c.integer("head_dim", dim // heads, low=2)
    if rope is not None and head_dim % 2:
        raise c.unsupported("head_dim", head_dim, "an even number")
    if rope == "stated":
        base = c.number("rope_theta", 10_000.0)
        rope = c.rope(head_dim, base=base, partial=partial, interleaved=interleaved)
    kv_heads = c.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise c.unsupported("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads={heads}")
    return Attention(
        dim,
        heads,
        kv_heads,
        head_dim,
        scale=head_dim**-0.5,
        rope=rope,
        bias=bias,
        out_bias=out_bias,
        qk_norm=qk_norm,
    )


def alibi_slopes(heads: int, largest: float = 8.0) -> tuple[float, ...]:
    """ALiBi's penalty a token of distance for each head (Press et al. 2022): 2 to the power of -k for as many k
    evenly spaced up to ``largest``; between powers of two, those of the lower one and every other of the higher.
    """
    count = 1 << (heads - 1).bit_length()
    slopes = [2.0 ** (-largest * k / count) for k in range(1, count + 1)]
    return tuple(slopes if count == heads else (slopes[1::2] + slopes[::2])[:heads])


def mlp(
    c: Config,
    *,
    bias: bool = False,
    gated: bool = True,
    activation_key: str = "hidden_act",
    expected: str | tuple[str, ...] = "silu",
    hidden: int | None = None,
) -> MLP:
    """Feed-forward with one of the family's activations, the first of ``expected`` by default."""
    choices = (expected,) if isinstance(expected, str) else expected
    name = c.only(activation_key, choices, choices[0])
    width = hidden if hidden is not None else c.integer("intermediate_size")
    return MLP(c.integer("hidden_size"), width, ACTIVATIONS[name], gated, bias)


def moe(
    c: Config,
    kind: type[MoE] = MoE,
    *,
    experts_key: str = "num_experts",
    hidden_key: str = "moe_intermediate_size",
    **fields: Any,
) -> MoE:
    """Experts with the family's activation; ``fields`` say how the router scores and chooses."""
    other = "num_local_experts"  # as transformers 5 saves it for some
    if experts_key == "num_experts" and (saved := c.get(other)) is not None:
        if c.get(experts_key, saved) != saved:
            raise c.unsupported(other, saved, f"{experts_key}={c.get(experts_key)!r}")
        experts_key = other
    experts, top_k = c.integer(experts_key), c.integer("num_experts_per_tok")
    if top_k > experts:
        raise c.unsupported("num_experts_per_tok", top_k, f"at most {experts_key}={experts}")
    name = c.only("hidden_act", ["silu"], "silu")
    c.flag("output_router_logits")
    return kind(c.integer("hidden_size"), c.integer(hidden_key), experts, top_k, ACTIVATIONS[name], **fields)


def model(
    c: Config,
    layers: Sequence[Layer],
    *,
    tied: bool = False,
    table: Table | None = None,
    ignored: tuple[str, ...] = (),
    idle: tuple[str, ...] = (),
    **fields: Any,
) -> ModelSpec:
    """A ``ModelSpec`` from the keys every config has; ``tied`` is the family's default.

    ``table`` says what is named otherwise than in most checkpoints; the final norm is the layers' unless given.
    """
    tied = c.flag("tie_word_embeddings", tied)
    table = standard(layers[0].placement) | (table or {})
    return ModelSpec(
        family=c.family,
        vocab=c.integer("vocab_size"),
        dim=c.integer("hidden_size"),
        layers=tuple(layers),
        max_context=fields.pop("max_context", None) or _context(c, layers),
        norm=fields.pop("norm", layers[0].norm),
        tied=tied,
        names=names(table, tied=tied, ignored=ignored, idle=idle),
        **fields,
    )


def _context(c: Config, layers: Sequence[Layer]) -> int:
    """How many tokens the model is made for: what the config says, stretched where that grows with the sequence."""
    stated = c.integer("max_position_embeddings")
    scalings = [rope.scaling for layer in layers for rope in layer.ropes]
    return max([stated, *(int(stated * s.factor) for s in scalings if isinstance(s, DynamicScaling))])


def layer_kinds(c: Config, default: list[str], known: tuple[str, ...] = LAYER_KINDS) -> list[str]:
    """``layer_types``: one of the ``known`` kinds a layer."""
    kinds: list[str] = c.get("layer_types", default)
    if not isinstance(kinds, list) or len(kinds) != len(default):
        raise c.unsupported("layer_types", kinds, f"{len(default)} entries, one a layer")
    for kind in kinds:
        if kind not in known:
            raise c.unsupported("layer_types", kind, " or ".join(map(repr, known)))
    return kinds
