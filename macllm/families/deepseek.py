"""DeepSeek V2 and V3 (and R1), and Kimi K2, which has V3's architecture."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from macllm.families.blocks import mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import Table, either, renamed
from macllm.families.registry import family
from macllm.spec import (
    MLP,
    LatentAttention,
    Layer,
    ModelSpec,
    MoE,
    Norm,
    YarnScaling,
)
from macllm.spec.names import Entry, LatentHeads

_LAYER = "model.layers.{i}."
_KEY_VALUE = ("layers.{i}.mixer.k_up", "layers.{i}.mixer.v_up")
SHARED_NAMES = renamed(
    {
        f"layers.{{i}}.channel.shared.{name}": f"{_LAYER}mlp.shared_experts.{name}_proj"
        for name in ("gate", "up", "down")
    }
)
LATENT_NAMES = renamed(
    {
        "layers.{i}.mixer.q_down": f"{_LAYER}self_attn.q_a_proj",
        "layers.{i}.mixer.q_norm": f"{_LAYER}self_attn.q_a_layernorm",
        "layers.{i}.mixer.q_up": f"{_LAYER}self_attn.q_b_proj",
        "layers.{i}.mixer.kv_down": f"{_LAYER}self_attn.kv_a_proj_with_mqa",
        "layers.{i}.mixer.kv_norm": f"{_LAYER}self_attn.kv_a_layernorm",
    }
)


@family("deepseek_v2")
def deepseek_v2(c: Config) -> ModelSpec:
    """DeepSeek V2 (arXiv 2405.04434): latent attention, experts chosen by softmax, within groups if so configured."""
    c.where_missing(q_lora_rank=1536)
    c.only("scoring_func", ["softmax"], "softmax")
    c.only("norm_topk_prob", [False], False)
    limited = c.only("topk_method", ["greedy", "group_limited_greedy"], "greedy") != "greedy"
    groups, top_groups = c.integer("n_group", 1), c.integer("topk_group", 1)
    bias = c.flag("mlp_bias")
    experts = routed_experts(
        c,
        groups=groups if limited else 1,
        top_groups=top_groups if limited else 1,
        group_score="best",
        weight_scale=c.number("routed_scaling_factor", 1.0),
        shared=shared_expert(c, 2, bias=bias),
    )
    mixer = latent_attention(c)
    return _model(c, mixer, mlp(c, bias=bias), experts, 0, {key: (_whole(mixer),) for key in _KEY_VALUE})


@family("deepseek_v3", "kimi_k2")
def deepseek_v3(c: Config) -> ModelSpec:
    """DeepSeek V3 (arXiv 2412.19437): latent attention, experts chosen by sigmoid within groups."""
    c.where_missing(q_lora_rank=1536)
    c.only("scoring_func", ["sigmoid"], "sigmoid")
    c.only("topk_method", ["noaux_tc"], "noaux_tc")
    experts = corrected_experts(c, groups=8, top_groups=4, weight_scale=2.5)
    mixer = latent_attention(c)
    return _model(c, mixer, mlp(c), experts, 3, key_value_names(mixer))


def corrected_experts(
    c: Config,
    *,
    groups: int = 1,
    top_groups: int = 1,
    renormalize: bool = True,
    weight_scale: float = 1.0,
) -> MoE:
    """V3's experts, which other families have too, with what they take for keys that are missing."""
    return routed_experts(
        c,
        groups=c.integer("n_group", groups),
        top_groups=c.integer("topk_group", top_groups),
        group_score="best_two",
        score="sigmoid",
        correction=True,
        renormalize=c.flag("norm_topk_prob", renormalize),
        weight_scale=c.number("routed_scaling_factor", weight_scale),
        shared=shared_expert(c, 1),
    )


def routed_experts(c: Config, *, groups: int, top_groups: int, **fields: Any) -> MoE:
    """Experts by DeepSeek's keys, chosen from the ``top_groups`` best groups."""
    c.only("moe_layer_freq", [1], 1)
    for key in ("ep_size", "aux_loss_alpha", "seq_aux", "pretraining_tp"):
        c.get(key)  # how it was trained
    experts = moe(c, experts_key="n_routed_experts", **fields)
    if experts.experts % groups:
        raise c.unsupported("n_group", groups, f"a divisor of n_routed_experts={experts.experts}")
    least = -(-experts.top_k * groups // experts.experts)  # groups that hold as many experts as are chosen
    if not least <= top_groups <= groups:
        raise c.unsupported("topk_group", top_groups, f"{least} to n_group={groups}")
    return replace(experts, groups=groups, top_groups=top_groups)


def shared_expert(c: Config, default: int, *, bias: bool = False) -> MLP:
    """As wide as so many experts together."""
    return mlp(
        c, hidden=c.integer("moe_intermediate_size") * c.integer("n_shared_experts", default), bias=bias
    )


def dense_first(c: Config, default: int, dense: MLP, experts: MoE) -> list[MLP | MoE]:
    """The channel block of each layer: the first ``first_k_dense_replace`` have no experts."""
    first = c.integer("first_k_dense_replace", default, low=0)
    return [dense if index < first else experts for index in range(c.integer("num_hidden_layers"))]


def further_tokens(c: Config) -> tuple[str, ...]:
    """The tensors of layers after the last, which predict tokens further on and are no part of the model proper."""
    c.get("num_nextn_predict_layers")
    return (rf"model\.layers\.{c.integer('num_hidden_layers')}\..*",)


def latent_attention(c: Config) -> LatentAttention:
    """Latent attention by DeepSeek's keys."""
    rope_dim, nope_dim = c.integer("qk_rope_head_dim", 64), c.integer("qk_nope_head_dim", 128)
    c.get("num_key_value_heads")
    c.get("head_dim")
    c.get("qk_head_dim")
    interleaved = c.flag("rope_interleave", True)
    rope = c.rope(rope_dim, base=c.number("rope_theta", 10_000.0), interleaved=interleaved)
    scale = (nope_dim + rope_dim) ** -0.5
    if isinstance(rope.scaling, YarnScaling):
        scale *= rope.scaling.score_factor
    q_rank = c.get("q_lora_rank")
    return LatentAttention(
        c.integer("hidden_size"),
        c.integer("num_attention_heads"),
        c.integer("q_lora_rank") if q_rank is not None else None,
        c.integer("kv_lora_rank", 512),
        nope_dim,
        rope_dim,
        c.integer("v_head_dim", 128),
        scale,
        rope,
        Norm("rms", 1e-6),
        c.flag("attention_bias"),
    )


def key_value_names(mixer: LatentAttention) -> Table:
    """Keys and values of all heads, stored as one matrix on the hub, as two stacks by MLX's tools."""
    keys, values = _KEY_VALUE
    apart = renamed({keys: f"{_LAYER}self_attn.embed_q", values: f"{_LAYER}self_attn.unembed_out"})
    return either({key: (_whole(mixer),) for key in _KEY_VALUE}, apart)


def _whole(mixer: LatentAttention) -> Entry:
    operation = LatentHeads(mixer.heads, mixer.nope_dim)
    return Entry(f"{_LAYER}self_attn.kv_b_proj", (operation,), keys=_KEY_VALUE)


def _model(
    c: Config, mixer: LatentAttention, dense: MLP, experts: MoE, first: int, key_value: Table
) -> ModelSpec:
    channels: Sequence[MLP | MoE] = dense_first(c, first, dense, experts)
    layers = [Layer(mixer, channel, norm=rms_norm(c)) for channel in channels]
    return model(c, layers, table=LATENT_NAMES | SHARED_NAMES | key_value, ignored=further_tokens(c))
