"""Falcon-H1."""

from collections.abc import Sequence
from dataclasses import replace

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.mamba import hybrid_mamba2, mamba_names
from macllm.families.names import Table, renamed
from macllm.families.registry import family
from macllm.spec import Layer, Mamba2, ModelSpec, ParallelMixers
from macllm.spec.names import Entry, Scaled

_LAYER = "model.layers.{i}."
_MIXER = "layers.{i}.mixer."
_NAMES = renamed(
    {
        "norm": "model.final_layernorm",
        "layers.{i}.channel_norm": f"{_LAYER}pre_ff_layernorm",
        "layers.{i}.channel.up": f"{_LAYER}feed_forward.up_proj",
    }
)


@family("falcon_h1")
def falcon_h1(c: Config) -> ModelSpec:
    """Falcon-H1 (arXiv 2507.22448): attention and Mamba 2 of the same input in every layer.

    The factors that muP puts on every path are part of the weights here, but for the one on keys, which is part of
    the scores' scale.
    """
    c.where_missing(num_key_value_heads=8, mamba_d_ssm=1024)
    c.only("mamba_use_mlp", [True], True)
    c.get("mlp_expansion_factor")
    norm, bias = rms_norm(c, default=1e-5), c.flag("attention_bias")
    attentive = attention(c, bias=bias, out_bias=bias)
    attentive = replace(attentive, scale=attentive.scale * c.number("key_multiplier", 1.0))
    inner = c.integer("mamba_d_ssm", c.integer("mamba_expand", 2) * attentive.dim)
    normed, norm_first = c.flag("mamba_rms_norm"), c.flag("mamba_norm_before_gate", True)
    recurrent = replace(
        hybrid_mamba2(c, inner, norm if normed else None),
        norm_first=norm_first and normed,
        out_bias=c.flag("projectors_bias"),
    )
    mixer = ParallelMixers((("mamba", recurrent), ("attention", attentive)))
    layer = Layer(mixer, mlp(c, bias=c.flag("mlp_bias")), norm=norm)
    embed, head = c.number("embedding_multiplier", 1.0), c.number("lm_head_multiplier", 1.0)
    outer = _folded("embed", "model.embed_tokens", embed) | _folded("head", "lm_head", head)
    mixers = mamba_names(f"{_LAYER}mamba.", recurrent, f"{_MIXER}mamba.") | _folded_layer(c, recurrent)
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        table=_NAMES | outer | mixers,
        logit_scale=head / embed if c.flag("tie_word_embeddings") else None,
    )


def _folded_layer(c: Config, recurrent: Mamba2) -> Table:
    """The names of the matrices that have factors."""
    given, made = c.number("attention_in_multiplier", 1.0), c.number("attention_out_multiplier", 1.0)
    before, after = c.number("ssm_in_multiplier", 1.0), c.number("ssm_out_multiplier", 1.0)
    gate, down = _numbers(c, "mlp_multipliers", 2)
    parts = _numbers(c, "ssm_multipliers", len(recurrent.projected))
    stored, fed = f"{_LAYER}self_attn.", f"{_LAYER}feed_forward."
    attended, selected, channel = f"{_MIXER}attention.", f"{_MIXER}mamba.", "layers.{i}.channel."
    rows, inputs = recurrent.projected, [before * part for part in parts]
    return (
        _folded(f"{attended}q", f"{stored}q_proj", given)
        | _folded(f"{attended}k", f"{stored}k_proj", given)
        | _folded(f"{attended}v", f"{stored}v_proj", given, forgotten=True)
        | _folded(f"{attended}o", f"{stored}o_proj", made, bias=[made])
        | _folded(f"{selected}in", f"{_LAYER}mamba.in_proj", *inputs, rows=rows, bias=parts)
        | _folded(f"{selected}out", f"{_LAYER}mamba.out_proj", after, bias=[after])
        | _folded(f"{channel}gate", f"{fed}gate_proj", gate, bias=[gate])
        | _folded(f"{channel}down", f"{fed}down_proj", down, bias=[down])
    )


def _folded(
    key: str,
    stored: str,
    *factors: float,
    rows: Sequence[int] = (),
    bias: Sequence[float] = (1.0,),
    forgotten: bool = False,
) -> Table:
    """A matrix that the hub keeps without its factors and mlx-lm with them, unless it has ``forgotten`` them.

    It forgets those of biases.
    """
    ours = Entry(stored, _scaled(factors, rows), form="hub")
    theirs = Entry(stored, ours.operations if forgotten else (), form="mlx")
    return {key: (ours, theirs), f"{key}.bias": (Entry(f"{stored}.bias", _scaled(bias, rows)),)}


def _scaled(factors: Sequence[float], rows: Sequence[int]) -> tuple[Scaled, ...]:
    return (Scaled(tuple(factors), tuple(rows)),) if any(factor != 1.0 for factor in factors) else ()


def _numbers(c: Config, key: str, count: int) -> list[float]:
    numbers = c.get(key, [1.0] * count)
    if (
        not isinstance(numbers, list)
        or len(numbers) != count
        or any(type(n) not in (int, float) for n in numbers)
    ):
        raise c.unsupported(key, numbers, f"{count} numbers")
    return [float(number) for number in numbers]
