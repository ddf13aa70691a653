"""Mamba 1 and 2 and Falcon Mamba; and what hybrid families take from them."""

import math

from macllm.families.blocks import model
from macllm.families.config import Config
from macllm.families.names import Table, convolutions, renamed
from macllm.families.registry import family
from macllm.spec import Layer, Mamba, Mamba2, ModelSpec, Norm

# Nothing in these models ends at any length; what was trained ends far below.
NO_LIMIT = 1_048_576
# How weights were initialized and in which type sums were held; and which implementation computes the same.
_HARMLESS = """
    time_step_min time_step_max time_step_floor time_step_scale time_step_init_scheme rescale_prenorm_residual
    residual_in_fp32 use_mambapy use_falcon_mambapy use_associative_scan use_mamba_kernels fused_add_norm
    pad_vocab_size_multiple chunk_size mamba_chunk_size num_logits_to_keep
""".split()
_OUTER = {
    "embed": "backbone.embeddings",
    "norm": "backbone.norm_f",
    "layers.{i}.mixer_norm": "backbone.layers.{i}.norm",
}
_MODULES = {
    "in": "in_proj",
    "x": "x_proj",
    "dt_norm": "dt_layernorm",
    "b_norm": "b_layernorm",
    "c_norm": "c_layernorm",
    "dt": "dt_proj",
    "A_log": "A_log",
    "D": "D",
    "norm": "norm",
    "out": "out_proj",
}


@family("mamba", "falcon_mamba")
def mamba(c: Config) -> ModelSpec:
    """Mamba (Gu and Dao 2023) and Falcon Mamba, which normalizes time steps, B and C without weights."""
    dim = c.integer("hidden_size")
    inner = int(c.number("expand", 2) * dim)
    _agree(c, intermediate_size=inner, d_inner=inner, d_model=dim, n_layer=c.integer("num_hidden_layers"))
    c.only("rms_norm", [True], True)
    c.only("ssm_cfg", [{}], {})
    c.only("hidden_act", ["silu"], "silu")
    norm = None
    if c.family == "falcon_mamba":
        norm = Norm("rms", c.number("mixer_rms_eps", 1e-6), weight=False)
    mixer = Mamba(
        dim,
        inner,
        c.integer("state_size", 16),
        step_rank(c, "time_step_rank"),
        c.integer("conv_kernel", 4),
        c.flag("use_bias"),
        c.flag("use_conv_bias", True),
        norm,
    )
    return _model(c, mixer, mamba_names("backbone.layers.{i}.mixer.", mixer), tied=True)


@family("mamba2")
def mamba2(c: Config) -> ModelSpec:
    """Mamba 2 (Dao and Gu 2024)."""
    dim, heads, head_dim = c.integer("hidden_size"), c.integer("num_heads", 128), c.integer("head_dim", 64)
    inner = int(c.number("expand", 2) * dim)
    c.get("time_step_rank")  # from Mamba 1
    # the authors' code knows a norm before the gate; none of the published models has it, whatever this key says
    c.get("norm_before_gate")
    _agree(c, intermediate_size=inner)
    if inner != heads * head_dim:
        raise c.unsupported("num_heads", heads, f"expand * hidden_size / head_dim = {inner / head_dim:g}")
    c.only("rms_norm", [True], True)
    c.only("hidden_act", ["silu"], "silu")
    bias = c.flag("use_bias")
    shortest, longest = step_limits(c)
    mixer = Mamba2(
        dim,
        heads,
        head_dim,
        head_groups(c, "n_groups", 8, heads),
        c.integer("state_size", 128),
        c.integer("conv_kernel", 4),
        Norm("rms", c.number("layer_norm_epsilon", 1e-5)),
        bias=bias,
        out_bias=bias,
        conv_bias=c.flag("use_conv_bias", True),
        shortest_step=shortest,
        longest_step=longest,
    )
    return _model(c, mixer, mamba_names("backbone.layers.{i}.mixer.", mixer), tied=False)


def hybrid_mamba2(c: Config, inner: int, norm: Norm | None) -> Mamba2:
    """Mamba 2 of ``inner`` channels by the keys that hybrid families have for it."""
    heads = c.integer("mamba_n_heads", 128)
    auto = c.get("mamba_d_head", "auto") == "auto"
    head_dim = inner // heads if auto else c.integer("mamba_d_head")
    if heads * head_dim != inner:
        raise c.unsupported(
            "mamba_n_heads", heads, f"a divisor of the {inner} channels, mamba_d_head={head_dim} each"
        )
    read_harmless(c)
    bias = c.flag("mamba_proj_bias")
    shortest, longest = step_limits(c)
    return Mamba2(
        c.integer("hidden_size"),
        heads,
        head_dim,
        head_groups(c, "mamba_n_groups", 1, heads),
        c.integer("mamba_d_state", 256),
        c.integer("mamba_d_conv", 4),
        norm,
        bias=bias,
        out_bias=bias,
        conv_bias=c.flag("mamba_conv_bias", True),
        shortest_step=shortest,
        longest_step=longest,
    )


def _model(c: Config, mixer: Mamba | Mamba2, table: Table, *, tied: bool) -> ModelSpec:
    read_harmless(c)
    layer = Layer(mixer, None, norm=Norm("rms", c.number("layer_norm_epsilon", 1e-5)))
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        tied=tied,
        table=renamed(_OUTER) | table,
        max_context=c.integer("max_position_embeddings", NO_LIMIT),
    )


def mamba_names(stored: str, mixer: Mamba | Mamba2, key: str = "layers.{i}.mixer.") -> Table:
    """The names of a mixer under ``key`` that is stored under ``stored``."""
    table = renamed({f"{key}{name}": f"{stored}{module}" for name, module in _MODULES.items()})
    bias = "dt_proj.bias" if isinstance(mixer, Mamba) else "dt_bias"
    table |= renamed({f"{key}dt_bias": f"{stored}{bias}"})
    return table | convolutions({f"{key}conv": f"{stored}conv1d"})


def read_harmless(c: Config) -> None:
    """Keys of these models that change nothing."""
    for key in _HARMLESS:
        c.get(key)


def step_rank(c: Config, key: str) -> int:
    """Through how many values time steps are computed: stated, or a sixteenth of the states' width."""
    if c.get(key, "auto") == "auto":
        return math.ceil(c.integer("hidden_size") / 16)
    return c.integer(key)


def head_groups(c: Config, key: str, default: int, heads: int) -> int:
    """Groups of heads that share B and C."""
    groups = c.integer(key, default)
    if heads % groups:
        raise c.unsupported(key, groups, f"a divisor of the {heads} heads")
    return groups


def step_limits(c: Config) -> tuple[float, float]:
    """The shortest and the longest time step of Mamba 2."""
    limits = c.get("time_step_limit", [0.0, math.inf])
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        raise c.unsupported("time_step_limit", limits, "two numbers")
    # transformers 5 writes {"__float__": "Infinity"}, since JSON has no such number
    low, high = (math.inf if limit == {"__float__": "Infinity"} else limit for limit in limits)
    if not all(type(limit) in (int, float) for limit in (low, high)) or not 0 <= low < high:
        raise c.unsupported("time_step_limit", limits, "two numbers, 0 or more and a larger one")
    return float(low), float(high)


def _agree(c: Config, **derived: int) -> None:
    """Keys that say a second time what others do."""
    for key, value in derived.items():
        c.only(key, [value], value)
