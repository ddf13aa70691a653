"""Qwen3-Next and Qwen3.5, text: three layers of Gated DeltaNet to one of gated attention."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import Table, convolutions, fused, less, renamed, standard
from macllm.families.registry import family
from macllm.spec import Attention, Channel, GatedDelta, Layer, ModelSpec, MoE, QKNorm
from macllm.spec.names import Entry, Rows, Stack

_LAYER = "model.layers.{i}."
_MIXER = "layers.{i}.mixer."
_DELTA = f"{_LAYER}linear_attn."
_LESS_ONE = ("norm", "layers.{i}.mixer_norm", "layers.{i}.channel_norm", f"{_MIXER}q_norm", f"{_MIXER}k_norm")


@family("qwen3_next")
def qwen3_next(c: Config) -> ModelSpec:
    """Qwen3-Next: experts, and projections of the delta rule by head."""
    c.where_missing(head_dim=256, num_key_value_heads=2, intermediate_size=5632)
    experts = _experts(c, renormalize=c.flag("norm_topk_prob", True))
    plain = mlp(c)
    dense, step = c.get("mlp_only_layers", []), c.integer("decoder_sparse_step", 1)
    if not isinstance(dense, list):
        raise c.unsupported("mlp_only_layers", dense, "a list of layers by number")
    channels: list[Channel] = [
        plain if index in dense or (index + 1) % step else experts
        for index in range(c.integer("num_hidden_layers"))
    ]
    heads = c.integer("linear_num_key_heads", 16)
    table = _fused(f"{_DELTA}in_proj_qkvz", "query", "key", "value", "z", groups=heads)
    return _model(c, channels, table | _fused(f"{_DELTA}in_proj_ba", "beta", "decay", groups=heads))


@family("qwen3_5_text")
def qwen3_5_text(c: Config) -> ModelSpec:
    """Qwen3.5 (text), dense."""
    c.where_missing(head_dim=256, num_key_value_heads=4)
    return _model(c, [mlp(c)] * c.integer("num_hidden_layers"), _APART)


@family("qwen3_5_moe_text")
def qwen3_5_moe_text(c: Config) -> ModelSpec:
    """Qwen3.5 (text) with experts, which repositories store as stacks."""
    c.where_missing(head_dim=256, num_key_value_heads=2, num_experts=256, num_experts_per_tok=8)
    c.only("norm_topk_prob", [True], True)
    channels: list[Channel] = [_experts(c, renormalize=True)] * c.integer("num_hidden_layers")
    c.get("intermediate_size")  # of a dense layer, of which there is none
    return _model(c, channels, _APART | _STACKED)


def _model(c: Config, channels: list[Channel], table: Table) -> ModelSpec:
    for key in ("mamba_ssm_dtype", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"):
        c.get(
            key
        )  # states are float32 here; layers that predict further tokens are not part of the model proper
    c.only("attn_output_gate", [True], True)
    norm, mixer, full = rms_norm(c), _delta(c), _attention(c)
    every = c.integer("full_attention_interval", 4)
    kinds = layer_kinds(
        c,
        [
            "full_attention" if (index + 1) % every == 0 else "linear_attention"
            for index in range(len(channels))
        ],
        ("full_attention", "linear_attention"),
    )
    layers = [
        Layer(full if kind == "full_attention" else mixer, channel, norm=norm)
        for kind, channel in zip(kinds, channels, strict=True)
    ]
    table = standard() | _NAMES | table | _fused(f"{_LAYER}self_attn.q_proj", "q", "gate", groups=full.heads)
    return model(c, layers, table=less(table, 1.0, _LESS_ONE, "hub"), ignored=(r"mtp\..*",))


def _attention(c: Config) -> Attention:
    bias = c.flag("attention_bias")
    mixer = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(rms_norm(c)), partial=0.25)
    return replace(mixer, gated=True)


def _delta(c: Config) -> GatedDelta:
    key_heads, value_heads = c.integer("linear_num_key_heads", 16), c.integer("linear_num_value_heads", 32)
    if value_heads % key_heads:
        raise c.unsupported("linear_num_value_heads", value_heads, f"a multiple of {key_heads}")
    return GatedDelta(
        c.integer("hidden_size"),
        key_heads,
        value_heads,
        c.integer("linear_key_head_dim", 128),
        c.integer("linear_value_head_dim", 128),
        c.integer("linear_conv_kernel_dim", 4, low=2),
        rms_norm(c),
    )


def _experts(c: Config, *, renormalize: bool) -> MoE:
    shared = mlp(c, hidden=c.integer("shared_expert_intermediate_size", 512))
    return moe(c, renormalize=renormalize, shared=shared, shared_gated=True)


def _fused(stored: str, *names: str, groups: int = 1) -> Table:
    return fused(stored, *(f"{_MIXER}{name}" for name in names), groups=groups)


_NAMES = renamed(
    {
        f"{_MIXER}dt_bias": f"{_DELTA}dt_bias",
        f"{_MIXER}A_log": f"{_DELTA}A_log",
        f"{_MIXER}norm": f"{_DELTA}norm",
        f"{_MIXER}output": f"{_DELTA}out_proj",
    }
) | convolutions({f"{_MIXER}conv": f"{_DELTA}conv1d"})
_APART = _fused(f"{_DELTA}in_proj_qkv", "query", "key", "value") | renamed(
    {
        f"{_MIXER}z": f"{_DELTA}in_proj_z",
        f"{_MIXER}beta": f"{_DELTA}in_proj_b",
        f"{_MIXER}decay": f"{_DELTA}in_proj_a",
    }
)


def _stacked() -> Table:
    """Experts stored as stacks, gate and up in one, or as other families do it."""
    keys = tuple(f"layers.{{i}}.channel.experts.{name}.weight" for name in ("gate", "up", "down"))
    upper = Entry(f"{_LAYER}mlp.experts.gate_up_proj", (Rows(),), "hub", keys[:2])
    stacks = (upper, upper, Entry(f"{_LAYER}mlp.experts.down_proj", form="hub"))
    return {
        key: (
            stack,
            Entry(f"{_LAYER}mlp.experts.{{e}}.{name}_proj.weight", (Stack(),), "hub"),
            Entry(f"{_LAYER}mlp.switch_mlp.{name}_proj.weight", form="mlx"),
        )
        for key, stack, name in zip(keys, stacks, ("gate", "up", "down"), strict=True)
    }


_STACKED = _stacked()
