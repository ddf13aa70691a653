"""Models whose layers carry a state: decays as they are, convolutions as matrices."""

import numpy as np
from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, converts

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
