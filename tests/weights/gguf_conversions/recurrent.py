"""Models whose layers carry a state: decays as they are, convolutions as matrices."""

import numpy as np
from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, converts

from gguf_conversions.dense import constants, split_pairs
from gguf_conversions.experts import EXPERTS


@converts(ARCH.MAMBA, "mamba", "falcon_mamba")
def mamba(m: Conversion) -> None:
    c = m.config
    m.keys = {
        "block_count": m.layers,
        "context_length": 2**20,
        "embedding_length": c["hidden_size"],
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": c["layer_norm_epsilon"],
        "ssm.conv_kernel": c["conv_kernel"],
        "ssm.inner_size": c["intermediate_size"],
        "ssm.state_size": c["state_size"],
        "ssm.time_step_rank": c["time_step_rank"],
        "ssm.dt_b_c_rms": c["model_type"] == "falcon_mamba",
    }
    states(m)


def states(m: Conversion) -> None:
    """Kernels without the axis that torch has between, decays below 0."""
    m.change("conv1d.weight", lambda values: values.squeeze(1))
    m.change("A_log", lambda values: -np.exp(values))


@converts(ARCH.MAMBA2, "mamba2")
def mamba2(m: Conversion) -> None:
    c = m.config
    inner = int(c.get("expand", 2) * c["hidden_size"])
    m.keys = {
        "block_count": m.layers,
        "context_length": 2**20,
        "embedding_length": c["hidden_size"],
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": c["layer_norm_epsilon"],
        "ssm.conv_kernel": c["conv_kernel"],
        "ssm.inner_size": inner,
        "ssm.state_size": c["state_size"],
        "ssm.time_step_rank": inner // c["head_dim"],
        "ssm.group_count": c["n_groups"],
    }
    states_by_head(m, c["n_groups"], ".mixer.")


def states_by_head(m: Conversion, groups: int, block: str) -> None:
    """Mamba 2: one value a head as a column, the norm by groups."""
    states(m)
    m.rename("dt_bias", "dt_proj.bias")
    for name in ("A_log", f"{block}D"):
        m.change(name, lambda values: values[:, None])
    m.change(f"{block}norm.weight", lambda values: values.reshape(groups, -1))


@converts(ARCH.JAMBA, "jamba")
def jamba(m: Conversion) -> None:
    c = m.config
    offset, period = c["attn_layer_offset"], c["attn_layer_period"]
    m.keys |= {
        "attention.head_count_kv": [m.kv_heads * (i % period == offset) for i in range(m.layers)],
        "ssm.conv_kernel": c["mamba_d_conv"],
        "ssm.inner_size": c["mamba_expand"] * c["hidden_size"],
        "ssm.state_size": c["mamba_d_state"],
        "ssm.time_step_rank": c["mamba_dt_rank"],
    }
    states(m)
    m.stack_experts("feed_forward.experts", EXPERTS)


@converts(ARCH.LFM2, "lfm2")
@converts(ARCH.LFM2MOE, "lfm2_moe")
def lfm2(m: Conversion) -> None:
    c = m.config
    attending = [kind == "full_attention" for kind in c["layer_types"]]
    m.keys |= {
        "vocab_size": c["vocab_size"],
        "attention.head_count_kv": [m.kv_heads * attends for attends in attending],
        "shortconv.l_cache": c["conv_L_cache"],
    }
    if c["model_type"] == "lfm2":
        m.keys["feed_forward_length"] = adjusted(m)
    else:
        m.keys |= {
            "expert_feed_forward_length": c["moe_intermediate_size"],
            "leading_dense_block_count": c["num_dense_layers"],
            "expert_gating_func": 2,
        }
    m.change("conv.conv.weight", lambda values: values.squeeze(1))
    m.rename("expert_bias", "expert_bias.bias")
    m.stack_experts("feed_forward.experts", {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"})


def adjusted(m: Conversion) -> int:
    """Hidden units as the model computes them from what the config says."""
    hidden = m.find("block_ff_dim", "intermediate_size")
    if m.config["block_auto_adjust_ff_dim"]:
        hidden = int(m.find("block_ffn_dim_multiplier", default=1) * int(2 * hidden / 3))
        multiple = m.config["block_multiple_of"]
        hidden = multiple * ((hidden + multiple - 1) // multiple)
    return hidden


@converts(ARCH.GRANITE_HYBRID, "granitemoehybrid")
def granite_hybrid(m: Conversion) -> None:
    c = m.config
    attending = [kind in ("attention", "full_attention") for kind in c["layer_types"]]
    rope = c["position_embedding_type"] == "rope"
    m.permute()
    constants(m)
    m.keys |= {
        "vocab_size": c["vocab_size"],
        "context_length": 2**20,
        "expert_shared_feed_forward_length": c["shared_intermediate_size"],
        "attention.head_count_kv": [m.kv_heads * attends for attends in attending],
        "rope.dimension_count": m.head_dim,
        "rope.scaling.finetuned": rope,
        "ssm.conv_kernel": c["mamba_d_conv"],
        "ssm.inner_size": c["mamba_expand"] * c["hidden_size"],
        "ssm.state_size": c["mamba_d_state"],
        "ssm.time_step_rank": c["mamba_n_heads"],
        "ssm.group_count": c["mamba_n_groups"],
    }
    states_by_head(m, c["mamba_n_groups"], ".mamba.")
    if c["num_local_experts"]:
        split_pairs(m, "block_sparse_moe.input_linear", "ffn_{}_exps")
        split_pairs(m, "shared_mlp.input_linear", "ffn_{}_shexp")
        return
    m.keys |= {
        "expert_count": 0,
        "expert_used_count": 0,
        "feed_forward_length": c["shared_intermediate_size"],
    }
    split_pairs(m, "shared_mlp.input_linear", "ffn_{}")
    for layer in range(m.layers):
        down = m.tensors.pop(f"model.layers.{layer}.shared_mlp.output_linear.weight")
        m.named[f"blk.{layer}.ffn_down.weight"] = down


@converts(ARCH.NEMOTRON_H, "nemotron_h")
def nemotron_h(m: Conversion) -> None:
    c = m.config
    words = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
    kinds = m.find("layers_block_type", "layer_types") or [
        words[each] for each in c["hybrid_override_pattern"]
    ]
    kinds = [{"mamba": "linear_attention", "attention": "full_attention"}.get(kind, kind) for kind in kinds]
    wide = c["moe_intermediate_size"] if "moe" in kinds else c["intermediate_size"]
    m.layers = len(kinds)
    m.permute()
    m.keys |= {
        "block_count": m.layers,
        "vocab_size": c["vocab_size"],
        "context_length": 2**20,
        "feed_forward_length": [wide * (kind in ("mlp", "moe")) for kind in kinds],
        "attention.head_count_kv": [m.kv_heads * (kind == "full_attention") for kind in kinds],
        "rope.dimension_count": m.head_dim,
        "rope.scaling.finetuned": False,
        "ssm.conv_kernel": c["conv_kernel"],
        "ssm.inner_size": c["mamba_num_heads"] * c["mamba_head_dim"],
        "ssm.state_size": c["ssm_state_size"],
        "ssm.time_step_rank": c["mamba_num_heads"],
        "ssm.group_count": c["n_groups"],
    }
    m.rename("model.layers.", "backbone.layers.")
    states_by_head(m, c["n_groups"], ".mixer.")
    if "moe" not in kinds:
        for key in ("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count"):
            m.keys.pop(key, None)
        return
    m.architecture = ARCH.NEMOTRON_H_MOE
    m.keys |= {
        "expert_feed_forward_length": wide,
        "expert_shared_feed_forward_length": c["moe_shared_expert_intermediate_size"],
        "expert_shared_count": c["n_shared_experts"],
        "expert_weights_norm": c["norm_topk_prob"],
        "expert_weights_scale": float(c["routed_scaling_factor"]),
    }
    if c.get("moe_latent_size") is not None:
        m.keys["moe_latent_size"] = c["moe_latent_size"]
    m.rename("e_score_correction_bias", "e_score_correction.bias")
    for layer in range(len(kinds)):
        for word in ("up", "down"):
            stem = f"backbone.layers.{layer}.mixer.experts."
            names = [name for name in m.tensors if name.startswith(stem) and f".{word}_proj." in name]
            if names:
                parts = [m.tensors.pop(f"{stem}{index}.{word}_proj.weight") for index in range(len(names))]
                m.named[f"blk.{layer}.ffn_{word}_exps.weight"] = np.stack(parts)


@converts(ARCH.FALCON_H1, "falcon_h1")
def falcon_h1(m: Conversion) -> None:
    """All factors go into the weights."""
    c = m.config
    m.keys |= {
        "vocab_size": c["vocab_size"],
        "ssm.conv_kernel": c["mamba_d_conv"],
        "ssm.inner_size": c["mamba_d_ssm"],
        "ssm.state_size": c["mamba_d_state"],
        "ssm.time_step_rank": c["mamba_n_heads"],
        "ssm.group_count": c["mamba_n_groups"],
    }
    given = c["attention_in_multiplier"]
    gate, down = c["mlp_multipliers"]
    factors = {
        "q_proj.weight": given,
        "k_proj.weight": given * c["key_multiplier"],
        "v_proj.weight": given,
        "o_proj.weight": c["attention_out_multiplier"],
        "mamba.out_proj.weight": c["ssm_out_multiplier"],
        "gate_proj.weight": gate,
        "down_proj.weight": down,
        "lm_head.weight": c["lm_head_multiplier"],
        "embed_tokens.weight": c["embedding_multiplier"],
    }
    for end, factor in factors.items():
        m.change(end, lambda values, f=factor: values * f)
    shared, inner = c["mamba_n_groups"] * c["mamba_d_state"], c["mamba_d_ssm"]
    rows = np.repeat(c["ssm_multipliers"], (inner, inner, shared, shared, c["mamba_n_heads"]))
    m.change("mamba.in_proj.weight", lambda values: values * rows[:, None] * c["ssm_in_multiplier"])
    states_by_head(m, c["mamba_n_groups"], ".mamba.")


@converts(ARCH.RWKV7, "rwkv7")
def rwkv7(m: Conversion) -> None:
    """The names of fla's checkpoints; the first layer gets networks for values, which are not used."""
    c = m.config
    m.keys = {
        "block_count": m.layers,
        "context_length": 2**20,
        "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"],
        "attention.head_count": 0,
        "attention.layer_norm_epsilon": c["norm_eps"],
        "wkv.head_size": c["head_dim"],
        "attention.decay_lora_rank": c["decay_low_rank_dim"],
        "attention.iclr_lora_rank": c["a_low_rank_dim"],
        "attention.value_residual_mix_lora_rank": c["v_low_rank_dim"],
        "attention.gate_lora_rank": c["gate_low_rank_dim"],
    }
    for layer in range(m.layers):
        stem, place = f"model.layers.{layer}.", f"blk.{layer}."
        taken = {
            name.removeprefix(stem): m.tensors.pop(name) for name in list(m.tensors) if name.startswith(stem)
        }
        mixes = [taken.pop(f"attn.x_{letter}").reshape(1, 1, -1) for letter in "rwkvag"]
        m.named[f"{place}time_mix_lerp_fused.weight"] = np.stack(mixes)
        for name, values in taken.items():
            m.named |= {f"{place}{new}": values.squeeze() for new in rwkv7_names(name, layer)}
        m.named[f"{place}time_mix_r_k.weight"] = m.named[f"{place}time_mix_r_k.weight"].reshape(-1)
        for name in ("k_k", "k_a", "ln"):
            m.named[f"{place}time_mix_{name}.weight"] = m.named[f"{place}time_mix_{name}.weight"].reshape(-1)
        m.named[f"{place}time_mix_ln.bias"] = m.named[f"{place}time_mix_ln.bias"].reshape(-1)
    for kind in ("weight", "bias"):
        m.named[f"token_embd_norm.{kind}"] = m.named.pop(f"blk.0.token_embd_norm.{kind}")
    m.named["token_embd.weight"] = m.tensors.pop("model.embeddings.weight")


def rwkv7_names(name: str, layer: int) -> list[str]:
    """What a tensor of a layer is called, once or, where it fills a gap, twice."""
    letters = {"r": "receptance", "k": "key", "v": "value", "o": "output"}
    parts = name.split(".")
    kind = parts[-1]
    if parts[0].endswith("norm"):
        word = {"attn_norm": "attn_norm", "ffn_norm": "attn_norm_2", "pre_norm": "token_embd_norm"}[parts[0]]
        return [f"{word}.{kind}"]
    if parts[0] == "ffn":
        return ["channel_mix_lerp_k.weight" if kind == "x_k" else f"channel_mix_{parts[1]}.weight"]
    if "_lora" in name:
        number = {"0weight": "1", "2weight": "2", "2bias": "0"}[parts[3] + kind]
        names = [f"time_mix_{name[5]}{number}.weight"]
        return names + ([f"time_mix_v{number}.weight"] if layer == 0 and name[5] == "a" else [])
    if parts[1].endswith("_proj"):
        return [f"time_mix_{letters[parts[1][0]]}.weight"]
    return [f"time_mix_ln.{kind}" if parts[1] == "g_norm" else f"time_mix_{parts[1]}.weight"]
