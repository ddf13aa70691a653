"""Models whose layers carry a state, alone or beside attention: Mamba, Jamba, LFM2."""

from collections.abc import Sequence

from macllm.families.names import Table
from macllm.spec import Mamba, Mamba2, ModelSpec, ShortConv
from macllm.spec.names import Decay, Entry, Reshaped
from macllm.weights.gguf.header import Config, Header
from macllm.weights.gguf.registry import Metadata, architecture, without
from macllm.weights.gguf.standard import RMS, SIGMOID, core, experts, heads, standard


def state_keys(mixer: Mamba | Mamba2) -> Metadata:
    keys: Metadata = {
        "ssm.conv_kernel": mixer.kernel,
        "ssm.inner_size": mixer.inner,
        "ssm.state_size": mixer.state,
        "ssm.time_step_rank": mixer.heads if isinstance(mixer, Mamba2) else mixer.rank,
    }
    return keys | ({"ssm.group_count": mixer.groups} if isinstance(mixer, Mamba2) else {})


def _write_mamba(spec: ModelSpec, keys: Metadata) -> Metadata:
    """No attention and no feed-forward, which readers want to be told."""
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, Mamba | Mamba2)
    keys |= {"attention.head_count": 0, "feed_forward_length": 0} | state_keys(mixer)
    return keys | ({"ssm.dt_b_c_rms": True} if isinstance(mixer, Mamba) and mixer.norm is not None else {})


@architecture("mamba", "mamba", "falcon_mamba", write=_write_mamba)
def mamba(h: Header) -> Config:
    """Mamba, and Falcon Mamba, whose inner norms have an epsilon of their own that no key holds."""
    config = _mamba(h)
    inner, dim = h.integer("ssm.inner_size"), config["hidden_size"]
    if inner % dim:
        raise h.wrong("ssm.inner_size", inner, f"a multiple of {dim}")
    falcon = h.flag("ssm.dt_b_c_rms", False)
    return (
        {
            "model_type": "falcon_mamba" if falcon else "mamba",
            "architectures": ["FalconMambaForCausalLM" if falcon else "MambaForCausalLM"],
        }
        | config
        | {
            "intermediate_size": inner,
            "expand": inner // dim,
            "time_step_rank": h.integer("ssm.time_step_rank"),
        }
    )


def _mamba(h: Header) -> Config:
    """What both Mambas have."""
    h.only("attention.head_count", 0)
    h.only("feed_forward_length", 0)
    return core(h) | {
        "state_size": h.integer("ssm.state_size"),
        "conv_kernel": h.integer("ssm.conv_kernel"),
        "layer_norm_epsilon": h.number(f"attention.{RMS}"),
        "hidden_act": "silu",
        "use_bias": "blk.0.ssm_in.bias" in h.tensors,
        "use_conv_bias": "blk.0.ssm_conv1d.bias" in h.tensors,
    }


def mamba2_layout(spec: ModelSpec, key: str = "layers.{i}.mixer.") -> Table:
    """One value a head as a column, and the norm by groups."""
    mixer = next(m for layer in spec.layers for m in layer.mixers if isinstance(m, Mamba2))
    column = Reshaped((mixer.heads, 1))
    return {
        f"{key}A_log": (Entry("blk.{i}.ssm_a", (column, Decay())),),
        f"{key}D": (Entry("blk.{i}.ssm_d", (column,)),),
        f"{key}norm": (Entry("blk.{i}.ssm_norm", (Reshaped((mixer.groups, mixer.inner // mixer.groups)),)),),
    }


@architecture("mamba2", "mamba2", write=_write_mamba, layout=mamba2_layout)
def mamba2(h: Header) -> Config:
    """Mamba 2."""
    config, inner, count = _mamba(h), h.integer("ssm.inner_size"), h.integer("ssm.time_step_rank")
    if inner % count or inner % config["hidden_size"]:
        raise h.wrong("ssm.inner_size", inner, f"a multiple of {count} and of {config['hidden_size']}")
    return (
        {"model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"]}
        | config
        | {
            "num_heads": count,
            "head_dim": inner // count,
            "expand": inner // config["hidden_size"],
            "n_groups": h.integer("ssm.group_count"),
        }
    )


def _write_jamba(spec: ModelSpec, keys: Metadata) -> Metadata:
    mixer = next(layer.mixer for layer in spec.layers if isinstance(layer.mixer, Mamba))
    keys |= state_keys(mixer)
    return without(keys, "leading_dense_block_count", "expert_feed_forward_length")


@architecture("jamba", "jamba", write=_write_jamba)
def jamba(h: Header) -> Config:
    """Jamba: layers with keys attend; those with a router have experts, as wide as the dense ones."""
    config = core(h)
    layers, dim = config["num_hidden_layers"], config["hidden_size"]
    counts = h.layers("attention.head_count_kv", layers) or [0] * layers
    period, offset = _period(h, "attention.head_count_kv", [count > 0 for count in counts])
    config |= heads(h, dim, max(counts))
    config |= {
        "model_type": "jamba",
        "architectures": ["JambaForCausalLM"],
        "hidden_act": "silu",
        "intermediate_size": h.integer("feed_forward_length"),
        "rms_norm_eps": h.number(f"attention.{RMS}"),
        "attn_layer_period": period,
        "attn_layer_offset": offset,
        "mamba_d_state": h.integer("ssm.state_size"),
        "mamba_d_conv": h.integer("ssm.conv_kernel"),
        "mamba_dt_rank": h.integer("ssm.time_step_rank"),
        "mamba_expand": h.integer("ssm.inner_size") // dim,
        "mamba_proj_bias": any(name.endswith("ssm_in.bias") for name in h.tensors),
        "mamba_conv_bias": any(name.endswith("ssm_conv1d.bias") for name in h.tensors),
    }
    mixing = [f"blk.{index}.ffn_gate_inp.weight" in h.tensors for index in range(layers)]
    if not any(mixing):
        h.only("expert_count", 0, 1)
        h.only("expert_used_count", 0, 1)
        return config | {"num_experts": 1, "num_experts_per_tok": 1}
    period, offset = _period(h, "expert_count", mixing)
    found = experts(h, hidden="intermediate_size", default=config["intermediate_size"], renormalized=False)
    return config | found | {"expert_layer_period": period, "expert_layer_offset": offset}


def _period(h: Header, key: str, chosen: Sequence[bool]) -> tuple[int, int]:
    """Each how many layers one is chosen, and the first of them."""
    indices = [index for index, each in enumerate(chosen) if each]
    if not indices:
        raise h.wrong(key, 0, "at least one layer of them")
    first, period = indices[0], indices[1] - indices[0] if len(indices) > 1 else len(chosen)
    if [index % period == first for index in range(len(chosen))] != list(chosen):
        raise h.wrong(key, indices, "layers at even distances")
    return period, first


def _convolution_layout(spec: ModelSpec) -> Table:
    """Short convolutions have tensors of their own, and the last norm the name of one after the embedding."""
    names = {"input": "in_proj", "conv": "conv", "output": "out_proj"}
    table: Table = {
        f"layers.{{i}}.mixer.{key}": (Entry(f"blk.{{i}}.shortconv.{name}"),) for key, name in names.items()
    }
    return table | {"norm": (Entry("token_embd_norm"), Entry("output_norm"))}


def _write_lfm2(spec: ModelSpec, keys: Metadata) -> Metadata:
    return keys | {"shortconv.l_cache": _convolution(spec).width}


def _convolution(spec: ModelSpec) -> ShortConv:
    return next(layer.mixer for layer in spec.layers if isinstance(layer.mixer, ShortConv))


def _lfm2(h: Header, model_type: str, model: str) -> Config:
    layers = h.integer("block_count")
    counts = h.layers("attention.head_count_kv", layers) or [0] * layers
    config = standard(h, model_type, model, kv_heads=max(counts))
    return config | {
        "norm_eps": config.pop("rms_norm_eps"),
        "layer_types": ["full_attention" if count else "conv" for count in counts],
        "conv_L_cache": h.integer("shortconv.l_cache"),
        "conv_bias": any(name.endswith("shortconv.conv.bias") for name in h.tensors),
        "tie_embedding": config["tie_word_embeddings"],
    }


@architecture("lfm2", "lfm2", write=_write_lfm2, layout=_convolution_layout)
def lfm2(h: Header) -> Config:
    """LFM2: layers without keys are convolutions."""
    config = _lfm2(h, "lfm2", "Lfm2ForCausalLM")
    return config | {"block_ff_dim": config["intermediate_size"], "block_auto_adjust_ff_dim": False}


@architecture("lfm2moe", "lfm2_moe", write=_write_lfm2, layout=_convolution_layout)
def lfm2moe(h: Header) -> Config:
    """LFM2 with experts."""
    config = _lfm2(h, "lfm2_moe", "Lfm2MoeForCausalLM")
    return (
        config
        | experts(h, gating=SIGMOID, renormalized=True)
        | {
            "num_dense_layers": h.integer("leading_dense_block_count", 0, low=0),
            "use_expert_bias": any(name.endswith("exp_probs_b.bias") for name in h.tensors),
            "norm_topk_prob": True,
        }
    )
