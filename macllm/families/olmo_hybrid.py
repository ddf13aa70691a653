"""OLMo Hybrid."""

from typing import Literal

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import Table, renamed, standard
from macllm.families.registry import family
from macllm.spec import Attention, Entry, GatedDelta, Layer, ModelSpec, Norm, QKNorm
from macllm.spec.names import Joined, Squeezed

_KINDS = ("full_attention", "linear_attention")
_LAYER = "model.layers.{i}."
_MIXER, _DELTA = "layers.{i}.mixer.", f"{_LAYER}linear_attn."
_NAMES = renamed(
    {
        f"{_MIXER}query": f"{_DELTA}q_proj",
        f"{_MIXER}key": f"{_DELTA}k_proj",
        f"{_MIXER}value": f"{_DELTA}v_proj",
        f"{_MIXER}z": f"{_DELTA}g_proj",
        f"{_MIXER}beta": f"{_DELTA}b_proj",
        f"{_MIXER}decay": f"{_DELTA}a_proj",
        f"{_MIXER}dt_bias": f"{_DELTA}dt_bias",
        f"{_MIXER}A_log": f"{_DELTA}A_log",
        f"{_MIXER}norm": f"{_DELTA}o_norm",
        f"{_MIXER}output": f"{_DELTA}o_proj",
    }
)


def _norm(key: str, *names: str) -> Table:
    """A norm under the first of its names, as mlx-lm has it, or under one that transformers gives it."""
    return {f"layers.{{i}}.{key}": tuple(Entry(f"{_LAYER}{name}") for name in names)}


_NORMS = (
    _norm("mixer_norm", "input_layernorm", "attention_layer_norm")
    | _norm("channel_norm", "post_attention_layernorm", "feedforward_layer_norm")
    | _norm("mixer_post_norm", "post_attention_layernorm", "feedforward_layer_norm")
)


@family("olmo_hybrid")
def olmo_hybrid(c: Config) -> ModelSpec:
    """OLMo Hybrid (Ai2 2026): three layers of Gated DeltaNet, with norms before, to one of OLMo 3's attention."""
    for key in (
        "linear_a_log_min",
        "linear_a_log_max",
        "linear_dt_min",
        "linear_dt_max",
        "linear_dt_init_floor",
    ):
        c.get(key)  # first values in training
    norm, full, delta = rms_norm(c), _attention(c), _delta(c)
    count = c.integer("num_hidden_layers")
    default = ["linear_attention" if (index + 1) % 4 else "full_attention" for index in range(count)]
    if "full_attention" not in default:
        default[-1] = "full_attention"
    kinds = layer_kinds(c, default, _KINDS)
    channel = mlp(c)
    layers = [
        Layer(full, channel, "post", norm) if kind == "full_attention" else Layer(delta, channel, norm=norm)
        for kind in kinds
    ]
    table = standard("pre") | standard("post") | _NORMS | _NAMES | _convolution(delta)
    return model(c, layers, table=table)


def _attention(c: Config) -> Attention:
    """OLMo 3's, where ``rope_theta`` is null without positions."""
    c.where_missing(rope_theta=10_000.0)
    theta = c.mapping("rope_parameters").get("rope_theta", c.get("rope_theta"))
    rope: Literal["stated"] | None = "stated" if theta is not None else None
    bias = c.flag("attention_bias")
    return attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(rms_norm(c), over="all"), rope=rope)


def _delta(c: Config) -> GatedDelta:
    dim, heads = c.integer("hidden_size"), c.integer("num_attention_heads")
    key_heads = c.integer("linear_num_key_heads", heads)
    c.only("linear_num_value_heads", [key_heads], heads)
    key_dim = c.integer("linear_key_head_dim", int(0.75 * dim / key_heads))
    return GatedDelta(
        dim,
        key_heads,
        key_heads,
        key_dim,
        c.integer("linear_value_head_dim", 2 * key_dim),
        c.integer("linear_conv_kernel_dim", 4, low=2),
        Norm("rms", 1e-5),
        beta_scale=2.0 if c.flag("linear_allow_neg_eigval", True) else 1.0,
    )


def _convolution(delta: GatedDelta) -> Table:
    """One convolution each for queries, keys and values; their kernels have an axis of one, but not in one place."""
    keys, values = delta.key_heads * delta.key_dim, delta.value_heads * delta.value_dim
    parts = Joined(("q", "k", "v"), (keys, keys, values))
    stored = f"{_DELTA}{{e}}_conv1d"
    return {
        f"{_MIXER}conv": (
            Entry(stored, (parts, Squeezed(1)), form="hub"),
            Entry(stored, (parts, Squeezed(2)), form="mlx"),
        )
    }
