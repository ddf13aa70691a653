"""Qwen3-Next and Qwen3.5: Gated DeltaNet beside gated attention."""

from macllm.families.names import Table, fused
from macllm.spec import Attention, GatedDelta, ModelSpec
from macllm.spec.names import Decay, Each, Entry, HeadTurns, Operation, Rows
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.layouts import late_norm
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.standard import experts, standard

_MIXER = "layers.{i}.mixer."
_QKV = tuple(f"{_MIXER}{name}" for name in ("query", "key", "value"))
_EVERY = 4  # layers to one that attends


def _parts(spec: ModelSpec) -> tuple[Attention, GatedDelta]:
    mixers = [layer.mixer for layer in spec.layers]
    full = next(mixer for mixer in mixers if isinstance(mixer, Attention))
    return full, next(mixer for mixer in mixers if isinstance(mixer, GatedDelta))


def _layout(spec: ModelSpec) -> Table:
    """Queries with their gates head by head, and so beta with the decays."""
    full, delta = _parts(spec)
    return (
        late_norm(spec)
        | fused("blk.{i}.attn_q", f"{_MIXER}q", f"{_MIXER}gate", groups=full.heads)
        | fused("blk.{i}.attn_qkv", *_QKV)
        | fused("blk.{i}.ssm_ba", f"{_MIXER}beta", f"{_MIXER}decay", groups=delta.key_heads)
    )


def _turned_layout(spec: ModelSpec) -> Table:
    """The heads of values by turns of their groups, as llama.cpp repeats keys."""
    delta = _parts(spec)[1]
    table = _layout(spec)
    if delta.key_heads == delta.value_heads:
        return table | _apart(())
    rows, one = (HeadTurns(delta.key_heads, width) for width in (delta.value_dim, 1))
    before = 2 * delta.key_heads * delta.key_dim
    table |= {
        key: (Entry("blk.{i}.attn_qkv", (Rows(), Each(((), (), (rows,)))), keys=_QKV),) for key in _QKV
    } | _apart((one,))
    changed: dict[str, tuple[str, tuple[Operation, ...]]] = {
        "z": ("attn_gate", (rows,)),
        "conv": ("ssm_conv1d", (HeadTurns(delta.key_heads, delta.value_dim, before),)),
        "A_log": ("ssm_a", (one, Decay())),
        "dt_bias": ("ssm_dt.bias", (one,)),
        "output": ("ssm_out", (HeadTurns(delta.key_heads, delta.value_dim, columns=True),)),
    }
    return table | {
        f"{_MIXER}{key}": (Entry(f"blk.{{i}}.{name}", operations),)
        for key, (name, operations) in changed.items()
    }


def _apart(operations: tuple[Operation, ...]) -> Table:
    return {
        f"{_MIXER}{key}": (Entry(f"blk.{{i}}.{name}", operations),)
        for key, name in (("beta", "ssm_beta"), ("decay", "ssm_alpha"))
    }


def _write(spec: ModelSpec, keys: Metadata) -> Metadata:
    full, delta = _parts(spec)
    recurrent = [isinstance(layer.mixer, GatedDelta) for layer in spec.layers]
    keys |= {
        "attention.head_count_kv": full.kv_heads,
        "attention.recurrent_layers": recurrent,
        "ssm.conv_kernel": delta.width,
        "ssm.state_size": delta.key_dim,
        "ssm.group_count": delta.key_heads,
        "ssm.time_step_rank": delta.value_heads,
        "ssm.inner_size": delta.value_heads * delta.value_dim,
    }
    regular = [bool((index + 1) % _EVERY) for index in range(len(recurrent))]
    return without(keys, "attention.recurrent_layers") if recurrent == regular else keys


def _write_35(spec: ModelSpec, keys: Metadata) -> Metadata:
    """Readers want the shares of the axes of an image, which text does not depend on."""
    pairs = keys["rope.dimension_count"] // 2
    sections = [-(-pairs // 3), -(-(pairs - -(-pairs // 3)) // 2)]
    return _write(spec, keys) | {"rope.dimension_sections": [*sections, pairs - sum(sections), 0]}


def _read(h: Header, model_type: str, model: str) -> Config:
    config = standard(h, model_type, model) | {"hidden_act": "silu"} | _bias(h)
    layers, heads = config["num_hidden_layers"], h.integer("ssm.time_step_rank")
    every = h.integer("full_attention_interval", _EVERY)
    recurrent = h.flags("attention.recurrent_layers", layers)
    if recurrent is None:
        recurrent = [bool((index + 1) % every) for index in range(layers)]
    return config | {
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
        "layer_types": ["linear_attention" if each else "full_attention" for each in recurrent],
        "linear_conv_kernel_dim": h.integer("ssm.conv_kernel"),
        "linear_key_head_dim": h.integer("ssm.state_size"),
        "linear_num_key_heads": h.integer("ssm.group_count"),
        "linear_num_value_heads": heads,
        "linear_value_head_dim": h.integer("ssm.inner_size") // heads,
    }


def _bias(h: Header) -> Config:
    return {"attention_bias": any(name.endswith("attn_q.bias") for name in h.tensors)}


def _experts(h: Header) -> Config:
    found = experts(h, renormalized=True)
    return found | {
        "shared_expert_intermediate_size": h.integer("expert_shared_feed_forward_length"),
        "norm_topk_prob": True,
    }


@architecture("qwen3next", "qwen3_next", write=_write, layout=_layout)
def qwen3next(h: Header) -> Config:
    """Qwen3-Next."""
    return _read(h, "qwen3_next", "Qwen3NextForCausalLM") | _experts(h)


@architecture("qwen35", "qwen3_5_text", write=_write_35, layout=_turned_layout)
def qwen35(h: Header) -> Config:
    """Qwen3.5 (text), dense."""
    h.get("rope.dimension_sections")
    return _read(h, "qwen3_5_text", "Qwen3_5ForCausalLM")


@architecture("qwen35moe", "qwen3_5_moe_text", write=_write_35, layout=_turned_layout)
def qwen35moe(h: Header) -> Config:
    """Qwen3.5 (text) with experts."""
    h.get("rope.dimension_sections")
    return _read(h, "qwen3_5_moe_text", "Qwen3_5MoeForCausalLM") | _experts(h)
