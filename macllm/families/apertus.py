"""Apertus."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import Table, either, renamed
from macllm.families.registry import family
from macllm.spec import Entry, Layer, Llama3Scaling, ModelSpec, QKNorm
from macllm.spec.channel import XIELU_NUMBERS
from macllm.spec.names import Squeezed

_NORMS = renamed(
    {
        "layers.{i}.mixer_norm": "model.layers.{i}.attention_layernorm",
        "layers.{i}.channel_norm": "model.layers.{i}.feedforward_layernorm",
    }
)
_NUMBERS = {
    f"layers.{{i}}.channel.activation.{name}": f"model.layers.{{i}}.mlp.act_fn.{name}"
    for name in XIELU_NUMBERS
}
# torch keeps the two that are learned as vectors of one element
_VECTORS: Table = {
    key: (Entry(stored, (Squeezed(0),) if "alpha" in key else ()),) for key, stored in _NUMBERS.items()
}


@family("apertus")
def apertus(c: Config) -> ModelSpec:
    """Apertus (arXiv 2509.14233): norms on q and k, and xIELU, whose shape each layer has learned."""
    c.where_missing(rope_theta=12_000_000.0)
    for key, value in (("post_norm", False), ("qk_norm", True), ("mlp_bias", False)):
        c.only(key, [value], value)
    bias, norm = c.flag("attention_bias"), rms_norm(c, default=1e-5)
    mixer = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(norm))
    if not c.mapping("rope_parameters") and not c.mapping("rope_scaling") and mixer.rope is not None:
        c.only("rope_theta", [12_000_000.0])  # the original takes no other without a scaling
        mixer = replace(mixer, rope=replace(mixer.rope, scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192)))
    channel = mlp(c, gated=False, expected="xielu")
    return model(
        c,
        [Layer(mixer, channel, norm=norm)] * c.integer("num_hidden_layers"),
        table=_NORMS | either(_VECTORS, renamed(_NUMBERS)),
        needs_bfloat16_range=True,  # xIELU squares
    )
