"""Gemma 3n and 4: inputs of each layer's own, and layers that see the keys and values of earlier ones."""

from statistics import NormalDist

import numpy as np

from macllm.families.custom.altup import AltUpLayer, Streams
from macllm.families.custom.side import ExpertsBeside, SideInputs, SparseMLP
from macllm.families.names import Table, fused
from macllm.spec import MLP, Attention, ModelSpec
from macllm.spec.names import Apart, Entry
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.rope import FREQUENCIES, NEVER
from macllm.weights.gguf.standard import RMS, core, layer_types, standard

_SIDE = {
    "frame.table": "per_layer_token_embd",
    "frame.project": "per_layer_model_proj",
    "frame.norm": "per_layer_proj_norm",
    "layers.{i}.side_gate": "blk.{i}.inp_gate",
    "layers.{i}.side_out": "blk.{i}.proj",
    "layers.{i}.side_norm": "blk.{i}.post_norm",
    "layers.{i}.scalar": "blk.{i}.layer_output_scale.weight",
}
_ALTUP = {
    "router": "altup_router",
    "router_norm": "altup_router_norm",
    "prediction": "altup_predict_coef.weight",
    "correction": "altup_correct_coef.weight",
    "side_scale": "altup_correct_scale.weight",
    "laurel_down": "laurel_l",
    "laurel_up": "laurel_r",
    "laurel_norm": "laurel_post_norm",
}
_EXPERTS = {
    "router_norm.weight": "ffn_gate_inp.scale",
    "expert_scale": "ffn_down_exps.scale",
    "experts_norm": "pre_ffw_norm_2",
    "experts_post_norm": "post_ffw_norm_2",
    "shared_norm": "ffn_norm",
    "shared_post_norm": "post_ffw_norm_1",
    **{f"shared.{name}": f"ffn_{name}" for name in ("gate", "up", "down")},
}
_CAP = 30.0  # of released models' logits
_EVERY = 5  # of Gemma 3n's layers one sees everything


def _gemma3n_layout(spec: ModelSpec) -> Table:
    table: Table = {key: (Entry(name),) for key, name in _SIDE.items()}
    table |= {f"layers.{{i}}.{key}": (Entry(f"blk.{{i}}.{name}"),) for key, name in _ALTUP.items()}
    assert isinstance(spec.frame, Streams)
    for key, name in (("spread", "altup_proj"), ("gather", "altup_unembd_proj")):
        keys = tuple(f"frame.{key}.{index}" for index in range(spec.frame.streams - 1))
        table |= dict.fromkeys(keys, (Entry(name, (Apart(),), keys=keys),))
    return table


def _shared(spec: ModelSpec) -> int:
    return sum(isinstance(layer.mixer, Attention) and layer.mixer.source is not None for layer in spec.layers)


def _own(h: Header, layers: int) -> Config:
    """What both have."""
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": "blk.0.attn_q.bias" in h.tensors,
        "num_kv_shared_layers": h.integer("attention.shared_kv_layers", 0, low=0),
        "sliding_window": h.integer("attention.sliding_window"),
        "layer_types": layer_types(h, layers, _EVERY),
    }


def _write_gemma3n(spec: ModelSpec, keys: Metadata) -> Metadata:
    layer = spec.layers[0]
    assert isinstance(layer, AltUpLayer)
    channels = [one.channel for one in spec.layers]
    widths = [channel.hidden for channel in channels if channel is not None]
    sparsities = [channel.sparsity if isinstance(channel, SparseMLP) else 0.0 for channel in channels]
    keys |= {
        "altup.active_idx": layer.active,
        "altup.num_inputs": layer.streams,
        "embedding_length_per_layer_input": layer.side,
        "attention.shared_kv_layers": _shared(spec),
        "feed_forward_length": widths,
        "activation_sparsity_scale": [_deviations(sparsity) for sparsity in sparsities],
        "rope.freq_base_swa": keys.get("rope.freq_base_swa", keys["rope.freq_base"]),
    }
    return without(keys, "attention.scale", "embedding_scale")


def _deviations(sparsity: float) -> float:
    """How many standard deviations above the mean a share of a normal distribution ends; of nothing: nowhere."""
    return NormalDist().inv_cdf(sparsity) if sparsity else float("-inf")


@architecture("gemma3n", "gemma3n_text", write=_write_gemma3n, layout=_gemma3n_layout)
def gemma3n(h: Header) -> Config:
    """Gemma 3n, text."""
    layers = h.integer("block_count")
    widths = h.layers("feed_forward_length", layers, low=1) or []
    config = standard(h, "gemma3n_text", "Gemma3nForCausalLM", hidden=max(widths, default=0))
    table, laurel = h.tensors.get("per_layer_token_embd.weight"), h.tensors.get("blk.0.laurel_l.weight")
    if table is None or laurel is None:
        raise h.damaged("tensor 'per_layer_token_embd.weight' or 'blk.0.laurel_l.weight' is missing")
    scales = h.get("activation_sparsity_scale")
    scales = scales.tolist() if isinstance(scales, np.ndarray) else [_deviations(0.0)] * layers
    return (
        config
        | _own(h, layers)
        | {
            "intermediate_size": widths,
            "rope_local_base_freq": h.number("rope.freq_base_swa", 10_000.0),
            "final_logit_softcapping": h.number("final_logit_softcapping", _CAP),
            "altup_active_idx": h.integer("altup.active_idx", 0, low=0),
            "altup_num_inputs": h.integer("altup.num_inputs", 4),
            "hidden_size_per_layer_input": h.integer("embedding_length_per_layer_input"),
            "vocab_size_per_layer_input": table.shape[0],
            "laurel_rank": laurel.shape[0],
            "activation_sparsity_pattern": [round(NormalDist().cdf(scale), 6) for scale in scales],
        }
    )


def _gemma4_layout(spec: ModelSpec) -> Table:
    """With experts the norms before and after the block are those of what stands beside them."""
    table: Table = {key: (Entry(name),) for key, name in _SIDE.items()}
    gate, up = (f"layers.{{i}}.channel.experts.{name}" for name in ("gate", "up"))
    joined = fused("blk.{i}.ffn_gate_up_exps", gate, up)
    table |= {
        key: (*joined[key], Entry(f"blk.{{i}}.ffn_{key.rpartition('.')[2]}_exps")) for key in (gate, up)
    }
    if any(isinstance(layer.channel, ExpertsBeside) for layer in spec.layers):
        table |= {
            f"layers.{{i}}.channel.{key}": (Entry(f"blk.{{i}}.{name}"),) for key, name in _EXPERTS.items()
        }
    return table


def _write_gemma4(spec: ModelSpec, keys: Metadata) -> Metadata:
    mixers = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention)]
    full = next(mixer for mixer in mixers if mixer.window is None)
    sliding = next((mixer for mixer in mixers if mixer.window is not None), full)
    channels = [layer.channel for layer in spec.layers]
    beside = next((channel for channel in channels if isinstance(channel, ExpertsBeside)), None)
    widths = [channel.hidden for channel in channels if isinstance(channel, MLP)]
    assert full.rope is not None
    assert sliding.rope is not None
    keys |= {
        "attention.key_length": full.head_dim,
        "attention.value_length": full.head_dim,
        "attention.key_length_swa": sliding.head_dim,
        "attention.value_length_swa": sliding.head_dim,
        "attention.head_count_kv": [mixer.kv_heads for mixer in mixers],
        "attention.shared_kv_layers": _shared(spec),
        "embedding_length_per_layer_input": spec.frame.width if isinstance(spec.frame, SideInputs) else 0,
        "rope.dimension_count": full.head_dim,
        "rope.dimension_count_swa": sliding.head_dim,
        "rope.freq_base_swa": sliding.rope.base,
        "final_logit_softcapping": spec.logit_cap or 0.0,
    }
    if beside is not None and beside.shared is not None:
        keys["feed_forward_length"] = beside.shared.hidden
    elif len(set(widths)) > 1:
        keys["feed_forward_length"] = widths
    left_out = ("attention.scale", "embedding_scale", "expert_shared_feed_forward_length")
    return without(keys, *left_out, "expert_gating_func", "expert_weights_norm")


@architecture("gemma4", "gemma4_text", write=_write_gemma4, layout=_gemma4_layout)
def gemma4(h: Header) -> Config:
    """Gemma 4, text: full layers have wider heads, of which those pairs turn whose factor is 1."""
    config = core(h)
    layers, count = config["num_hidden_layers"], h.integer("attention.head_count")
    width, local = h.integer("attention.key_length"), h.integer("attention.key_length_swa")
    own = _own(h, layers)
    kv_heads = h.layers("attention.head_count_kv", layers, low=1) or [count] * layers
    by_kind = dict(zip(own["layer_types"], kv_heads, strict=True))
    for key, value in (("value_length", width), ("value_length_swa", local)):
        h.only(f"attention.{key}", value)
    for key, value in (("rope.dimension_count", width), ("rope.dimension_count_swa", local)):
        h.only(key, value)
    full_layer = own["layer_types"].index("full_attention")
    keys_only = f"blk.{full_layer}.attn_v.weight" not in h.tensors
    return (
        {"model_type": "gemma4_text", "architectures": ["Gemma4ForCausalLM"]}
        | config
        | own
        | {
            "num_attention_heads": count,
            "num_key_value_heads": by_kind.get("sliding_attention", kv_heads[0]),
            "head_dim": local,
            "global_head_dim": width,
            "attention_k_eq_v": keys_only,
            **({"num_global_key_value_heads": by_kind["full_attention"]} if keys_only else {}),
            "rms_norm_eps": h.number(f"attention.{RMS}"),
            "rope_parameters": {
                "full_attention": _turning(h, width),
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": h.number("rope.freq_base_swa", 10_000.0),
                },
            },
        }
        | _side(h, config["vocab_size"])
        | _channels(h, layers, own["num_kv_shared_layers"])
        | {"final_logit_softcapping": _cap(h)}
    )


def _cap(h: Header) -> float | None:
    """Readers take a missing key for the cap of all released models; 0 caps nothing."""
    missing = h.get("final_logit_softcapping") is None
    return _CAP if missing else h.optional("final_logit_softcapping", "cap").get("cap")


def _turning(h: Header, width: int) -> Config:
    factors = h.factors(FREQUENCIES, width // 2)
    turning = sum(factor == 1.0 for factor in factors) if factors is not None else width // 2
    if factors is not None and factors != [1.0] * turning + [NEVER] * (width // 2 - turning):
        raise h.damaged(f"tensor {FREQUENCIES!r} holds other factors than 1 and {NEVER}")
    return {
        "rope_type": "proportional",
        "rope_theta": h.number("rope.freq_base", 10_000.0),
        "partial_rotary_factor": turning / (width // 2),
    }


def _side(h: Header, vocab: int) -> Config:
    width = h.integer("embedding_length_per_layer_input", 0, low=0)
    table = h.tensors.get("per_layer_token_embd.weight")
    return {
        "hidden_size_per_layer_input": width,
        "vocab_size_per_layer_input": table.shape[0] if table is not None else vocab,
    }


def _channels(h: Header, layers: int, shared: int) -> Config:
    widths = h.layers("feed_forward_length", layers, low=1)
    if widths is None:
        raise h.wrong("feed_forward_length", None, "a whole number")
    config: Config = {"intermediate_size": widths[0], "use_double_wide_mlp": len(set(widths)) > 1}
    doubled = [widths[0] * (1 + (index >= layers - shared)) for index in range(layers)]
    if len(set(widths)) > 1 and widths != doubled:
        raise h.wrong("feed_forward_length", widths, "one width, doubled where keys are shared")
    if not h.get("expert_count"):
        return config | {"enable_moe_block": False}
    return config | {
        "enable_moe_block": True,
        "num_experts": h.integer("expert_count"),
        "top_k_experts": h.integer("expert_used_count"),
        "moe_intermediate_size": h.integer("expert_feed_forward_length"),
    }
