"""Granite: constants on embeddings, scores, residuals and logits."""

from macllm.families.names import Table
from macllm.spec import Mamba2, ModelSpec, MoE
from macllm.weights.gguf.architectures.recurrent import mamba2_layout, state_keys
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import paired_heads
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.standard import biases, experts, standard

_SHARED = "expert_shared_feed_forward_length"
_HYBRID = {"model_type": "granitemoehybrid", "architectures": ["GraniteMoeHybridForCausalLM"]}


def write(spec: ModelSpec, keys: Metadata) -> Metadata:
    """Logits are divided by the scale that the key has."""
    keys["logit_scale"] = 1 / (spec.logit_scale or 1.0)
    return without(keys, "expert_feed_forward_length", "expert_gating_func", "expert_weights_norm")


def constants(h: Header, head_dim: int) -> Config:
    """The constants; a missing one leaves things as they are."""
    return {
        "attention_multiplier": h.number("attention.scale", head_dim**-0.5),
        "embedding_multiplier": h.number("embedding_scale", 1.0),
        "residual_multiplier": h.number("residual_scale", 1.0),
        "logits_scaling": h.number("logit_scale", 1.0),
    }


def _recurrent(spec: ModelSpec) -> bool:
    return any(isinstance(layer.mixer, Mamba2) for layer in spec.layers)


def _sparse(spec: ModelSpec) -> bool:
    return any(isinstance(layer.channel, MoE) for layer in spec.layers)


@architecture(
    "granite",
    "granite",
    "granitemoehybrid",
    write=write,
    layout=paired_heads,
    fits=lambda spec: not _recurrent(spec) and not _sparse(spec),
)
def granite(h: Header) -> Config:
    """Granite 3, dense, and Granite 4 where all layers attend and none has experts."""
    config = standard(h, "granite", "GraniteForCausalLM") | {"hidden_act": "silu"} | biases(h)
    h.only("rope.scaling.finetuned", True)  # false: no positions
    for key in (_SHARED, "expert_used_count"):
        h.get(key)  # stays in the file of a model without experts
    return config | constants(h, config["head_dim"])


@architecture(
    "granitemoe",
    "granitemoe",
    "granitemoehybrid",
    write=write,
    layout=paired_heads,
    fits=lambda spec: not _recurrent(spec) and _sparse(spec),
)
def granitemoe(h: Header) -> Config:
    """Granite 3 with experts; beside a feed-forward block they are Granite 4's, of layers that all attend."""
    config = standard(h, "granitemoe", "GraniteMoeForCausalLM") | {"hidden_act": "silu"} | biases(h)
    h.only("rope.scaling.finetuned", True)
    config |= _experts(h, config["intermediate_size"]) | constants(h, config["head_dim"])
    if not h.get(_SHARED):
        return config
    layers: int = config["num_hidden_layers"]
    return (
        config
        | _HYBRID
        | {
            "shared_intermediate_size": h.integer(_SHARED),
            "layer_types": ["attention"] * layers,
            "position_embedding_type": "rope",
        }
    )


def _experts(h: Header, width: int) -> Config:
    """A softmax of all, made to sum to one, is one of the chosen."""
    return experts(h, count="num_local_experts", hidden="intermediate_size", default=width)


def _layout(spec: ModelSpec) -> Table:
    return paired_heads(spec) | mamba2_layout(spec)


def _write_hybrid(spec: ModelSpec, keys: Metadata) -> Metadata:
    mixer = next(layer.mixer for layer in spec.layers if isinstance(layer.mixer, Mamba2))
    positions = "rope.freq_base" in keys
    return write(spec, keys) | state_keys(mixer) | {"rope.scaling.finetuned": positions}


@architecture("granitehybrid", "granitemoehybrid", write=_write_hybrid, layout=_layout, fits=_recurrent)
def granitehybrid(h: Header) -> Config:
    """Granite 4: layers without keys are Mamba 2; without positions unless a key says otherwise."""
    layers, heads = h.integer("block_count"), h.integer("ssm.time_step_rank")
    counts = h.layers("attention.head_count_kv", layers) or [0] * layers
    config = standard(h, "", "", kv_heads=max(counts)) | _HYBRID | {"hidden_act": "silu"}
    dim, inner, dense = config["hidden_size"], h.integer("ssm.inner_size"), config["intermediate_size"]
    config |= constants(h, config["head_dim"]) | {
        "layer_types": ["attention" if count else "mamba" for count in counts],
        "attention_bias": any(name.endswith("attn_q.bias") for name in h.tensors),
        "position_embedding_type": "rope" if h.flag("rope.scaling.finetuned", True) else "nope",
        "mamba_n_heads": heads,
        "mamba_d_head": inner // heads,
        "mamba_d_state": h.integer("ssm.state_size"),
        "mamba_d_conv": h.integer("ssm.conv_kernel"),
        "mamba_expand": inner // dim,
        "mamba_n_groups": h.integer("ssm.group_count"),
        "mamba_conv_bias": any(name.endswith("ssm_conv1d.bias") for name in h.tensors),
        "mamba_proj_bias": any(name.endswith("ssm_in.bias") for name in h.tensors),
    }
    if h.get("expert_count"):
        return config | _experts(h, dense) | {"shared_intermediate_size": h.integer(_SHARED)}
    for key in (_SHARED, "expert_used_count"):
        h.get(key)  # stays in the file of a model without experts
    return config | {"num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": dense}
