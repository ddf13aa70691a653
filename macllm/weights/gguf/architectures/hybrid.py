"""Mamba 2 beside attention: Nemotron-H, whose layers are one block each, and Falcon-H1, whose layers have both."""

import math
from dataclasses import replace

from macllm.families.names import Table
from macllm.spec import Attention, LatentMoE, Layer, Mamba2, ModelSpec, MoE, ParallelMixers
from macllm.spec.names import Entry, Scaled
from macllm.weights.gguf.architectures.recurrent import mamba2_layout, state_keys
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import paired_heads
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.rope import rope_keys
from macllm.weights.gguf.standard import LAYER_NORM, RMS, SIGMOID, core, experts, heads, standard

_MAMBA, _ATTENTION = "layers.{i}.mixer.mamba.", "layers.{i}.mixer.attention."


def _nemotron_layout(spec: ModelSpec) -> Table:
    """A layer's one norm is the first, whatever its block."""
    return (
        paired_heads(spec) | mamba2_layout(spec) | {"layers.{i}.channel_norm": (Entry("blk.{i}.attn_norm"),)}
    )


def _sparse(spec: ModelSpec) -> bool:
    return any(isinstance(layer.channel, MoE) for layer in spec.layers)


def _write_nemotron(spec: ModelSpec, keys: Metadata) -> Metadata:
    recurrent = next(layer.mixer for layer in spec.layers if isinstance(layer.mixer, Mamba2))
    moe = next((layer.channel for layer in spec.layers if isinstance(layer.channel, MoE)), None)
    keys |= state_keys(recurrent) | {
        "feed_forward_length": [
            layer.channel.hidden if layer.channel is not None else 0 for layer in spec.layers
        ],
        f"attention.{LAYER_NORM}": spec.norm.eps,
    }
    if moe is not None:
        keys["expert_shared_count"] = 1
    if isinstance(moe, LatentMoE):
        keys["moe_latent_size"] = moe.latent
    return without(keys, f"attention.{RMS}", "leading_dense_block_count")


@architecture(
    "nemotron_h",
    "nemotron_h",
    write=_write_nemotron,
    layout=_nemotron_layout,
    fits=lambda spec: not _sparse(spec),
)
def nemotron_h(h: Header) -> Config:
    """Nemotron-H: layers with keys attend, those with a width are feed-forward, the others Mamba 2."""
    return _nemotron(h, "-")


@architecture("nemotron_h_moe", "nemotron_h", write=_write_nemotron, layout=_nemotron_layout, fits=_sparse)
def nemotron_h_moe(h: Header) -> Config:
    """Nemotron 3: layers with a width have experts."""
    config = _nemotron(h, "E")
    h.only("expert_shared_count", 1)
    return (
        config
        | experts(h, count="n_routed_experts", gating=SIGMOID)
        | {
            "n_shared_experts": 1,
            "moe_shared_expert_intermediate_size": h.integer("expert_shared_feed_forward_length"),
            "norm_topk_prob": h.flag("expert_weights_norm", False),
            "routed_scaling_factor": h.number("expert_weights_scale", 1.0),
            "n_group": h.integer("expert_group_count", 1),
            "topk_group": h.integer("expert_group_used_count", 1),
        }
        | ({"moe_latent_size": h.integer("moe_latent_size")} if h.get("moe_latent_size") else {})
    )


def _nemotron(h: Header, letter: str) -> Config:
    config = core(h)
    layers, count = config["num_hidden_layers"], h.integer("ssm.time_step_rank")
    keys = h.layers("attention.head_count_kv", layers) or [0] * layers
    widths = h.layers("feed_forward_length", layers) or [0] * layers
    kinds = ["*" if key else letter if width else "M" for key, width in zip(keys, widths, strict=True)]
    for key in ("rope.dimension_count", "rope.freq_base"):
        h.get(key)  # there are no positions
    h.only("rope.scaling.finetuned", False)
    if len({width for width in widths if width}) > 1:
        raise h.wrong("feed_forward_length", widths, "one width")
    return (
        {"model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"]}
        | config
        | heads(h, config["hidden_size"], max(keys))
        | {
            "intermediate_size": max(widths),
            "hybrid_override_pattern": "".join(kinds),
            "layer_norm_epsilon": h.number(f"attention.{RMS}", h.number(f"attention.{LAYER_NORM}")),
            "mlp_hidden_act": "relu2",
            "mlp_bias": any(name.endswith(("ffn_up.bias", "ffn_up_shexp.bias")) for name in h.tensors),
            "use_bias": any(name.endswith("ssm_in.bias") for name in h.tensors),
            "mamba_proj_bias": any(name.endswith("ssm_in.bias") for name in h.tensors),
            "use_conv_bias": any(name.endswith("ssm_conv1d.bias") for name in h.tensors),
            "mamba_num_heads": count,
            "mamba_head_dim": h.integer("ssm.inner_size") // count,
            "n_groups": h.integer("ssm.group_count"),
            "ssm_state_size": h.integer("ssm.state_size"),
            "conv_kernel": h.integer("ssm.conv_kernel"),
        }
    )


def _both(layer: Layer) -> tuple[Mamba2, Attention]:
    assert isinstance(layer.mixer, ParallelMixers)
    mixers = dict(layer.mixer.mixers)
    recurrent, attentive = mixers["mamba"], mixers["attention"]
    assert isinstance(recurrent, Mamba2)
    assert isinstance(attentive, Attention)
    return recurrent, attentive


def _stated_falcon(spec: ModelSpec) -> ModelSpec:
    """With the factor of the keys among their weights, which the spec has in the scale of the scores."""

    def plain(layer: Layer) -> Layer:
        recurrent, attentive = _both(layer)
        attentive = replace(attentive, scale=attentive.head_dim**-0.5)
        return replace(layer, mixer=ParallelMixers((("mamba", recurrent), ("attention", attentive))))

    return replace(spec, layers=tuple(plain(layer) for layer in spec.layers))


def _falcon_layout(spec: ModelSpec) -> Table:
    attentive = _both(spec.layers[0])[1]
    stored = {"in": "ssm_in", "conv": "ssm_conv1d", "dt_bias": "ssm_dt.bias", "out": "ssm_out"}
    table: Table = {f"{_MAMBA}{key}": (Entry(f"blk.{{i}}.{name}"),) for key, name in stored.items()}
    table |= {f"{_ATTENTION}{name}": (Entry(f"blk.{{i}}.attn_{name}"),) for name in "qkv"}
    factor = attentive.scale * attentive.head_dim**0.5
    if not math.isclose(factor, 1):
        table[f"{_ATTENTION}k"] = (Entry("blk.{i}.attn_k", (Scaled((1 / factor,)),)),)
    return (
        table
        | mamba2_layout(spec, _MAMBA)
        | {
            f"{_ATTENTION}o": (Entry("blk.{i}.attn_output"),),
            # llama.cpp has forgotten the kind of this one
            "layers.{i}.channel_norm.weight": (Entry("blk.{i}.ffn_norm"), Entry("blk.{i}.ffn_norm.weight")),
        }
    )


def _write_falcon(spec: ModelSpec, keys: Metadata) -> Metadata:
    recurrent, attentive = _both(spec.layers[0])
    assert attentive.rope is not None
    return (
        keys
        | state_keys(recurrent)
        | rope_keys(attentive.rope)
        | {
            "attention.head_count": attentive.heads,
            "attention.head_count_kv": attentive.kv_heads,
            "attention.key_length": attentive.head_dim,
            "attention.value_length": attentive.head_dim,
        }
    )


@architecture("falcon-h1", "falcon_h1", write=_write_falcon, layout=_falcon_layout, stated=_stated_falcon)
def falcon_h1(h: Header) -> Config:
    """Falcon-H1: all its factors are part of the weights."""
    config = standard(h, "falcon_h1", "FalconH1ForCausalLM") | {"hidden_act": "silu"}
    count, inner = h.integer("ssm.time_step_rank"), h.integer("ssm.inner_size")
    return config | {
        "attention_bias": any(name.endswith("attn_q.bias") for name in h.tensors),
        "mamba_d_ssm": inner,
        "mamba_n_heads": count,
        "mamba_d_head": inner // count,
        "mamba_n_groups": h.integer("ssm.group_count"),
        "mamba_d_state": h.integer("ssm.state_size"),
        "mamba_d_conv": h.integer("ssm.conv_kernel"),
        "mamba_conv_bias": any(name.endswith("ssm_conv1d.bias") for name in h.tensors),
        "mamba_proj_bias": any(name.endswith("ssm_in.bias") for name in h.tensors),
        "projectors_bias": any(name.endswith("ssm_out.bias") for name in h.tensors),
        "mamba_rms_norm": any(name.endswith("ssm_norm.weight") for name in h.tensors),
        "mamba_norm_before_gate": False,
        "mlp_bias": any(name.endswith("ffn_up.bias") for name in h.tensors),
    }
