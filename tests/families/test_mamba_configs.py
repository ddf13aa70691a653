"""Configs of state-space families: the several ways to say the same, and what is refused."""

import math
from typing import Any

import pytest
from tiny import config_of

from macllm.errors import ConfigError
from macllm.families import spec_from_config
from macllm.spec import Attention, Mamba, Mamba2


def with_keys(variant: str, **keys: Any) -> dict[str, Any]:
    """A variant's config; None takes a key out, "null" is null."""
    config = config_of(variant) | keys
    return {key: None if value == "null" else value for key, value in config.items() if value is not None}


@pytest.mark.parametrize(
    ("variant", "keys"),
    [
        ("mamba2", {"time_step_limit": [0.0, {"__float__": "Infinity"}]}),
        ("mamba2", {"time_step_limit": None}),
        ("mamba2", {"intermediate_size": None}),
        ("mamba", {"time_step_rank": "auto"}),
        ("mamba", {"time_step_rank": None, "intermediate_size": None}),
        ("granite-hybrid", {"mamba_d_head": "auto"}),
        ("granite-hybrid", {"position_embedding_type": None}),
        ("granite-hybrid", {"layer_types": ["linear_attention", "full_attention", "mamba", "mamba"]}),
        ("nemotron-h", {"hybrid_override_pattern": None, "layers_block_type": [*"abc"]}),
        ("nemotron-h", {"n_groups": None, "mamba_n_groups": 2, "conv_kernel": None, "mamba_d_conv": 4}),
        ("nemotron-h", {"head_dim": None, "attention_head_dim": 12}),
        ("falcon-h1-plain", {"mamba_d_ssm": "null", "mamba_d_head": "auto", "ssm_multipliers": None}),
        ("nemotron-h", {"time_step_min": 0.5}),  # of the initialization only
    ],
    ids=str,
)
def test_ways_to_say_the_same(variant: str, keys: dict[str, Any]) -> None:
    if "layers_block_type" in keys:
        keys["layers_block_type"] = ["mamba", "mlp", "attention", "mlp", "linear_attention", "mamba"]
    assert spec_from_config(with_keys(variant, **keys)) == spec_from_config(config_of(variant))


@pytest.mark.parametrize(
    ("variant", "keys", "found"),
    [
        ("mamba", {"intermediate_size": 95}, "intermediate_size=95"),
        ("mamba", {"d_inner": 95}, "d_inner=95"),
        ("mamba", {"ssm_cfg": {"layer": "Mamba2"}}, "ssm_cfg="),
        ("mamba", {"rms_norm": False}, "rms_norm=False"),
        ("mamba2", {"num_heads": 11}, "num_heads=11"),
        ("mamba2", {"n_groups": 5}, "n_groups=5"),
        ("mamba2", {"time_step_limit": [1.0, 0.5]}, "time_step_limit="),
        ("mamba2", {"time_step_limit": [0.0, "much"]}, "time_step_limit="),
        ("mamba2", {"time_step_limit": 3}, "time_step_limit=3"),
        ("granite-hybrid", {"position_embedding_type": "alibi"}, "position_embedding_type='alibi'"),
        ("granite-hybrid", {"layer_types": ["mamba"]}, "layer_types="),
        ("jamba", {"attn_layer_offset": 3}, "attn_layer_offset=3"),
        ("jamba", {"sliding_window": 64}, "sliding_window=64"),
        ("nemotron-h", {"hybrid_override_pattern": "M-*-MX"}, "hybrid_override_pattern='X'"),
        ("nemotron-h", {"num_hidden_layers": 7}, "num_hidden_layers=7"),
        ("nemotron-h", {"mamba_proj_bias": True}, "mamba_proj_bias=True"),
        ("falcon-h1", {"mamba_d_ssm": 61}, "mamba_n_heads=6"),
        ("falcon-h1", {"mlp_multipliers": [1.0]}, "mlp_multipliers=[1.0]"),
        ("falcon-h1", {"mamba_use_mlp": False}, "mamba_use_mlp=False"),
        ("nemotron-h-experts", {"n_shared_experts": 2}, "n_shared_experts=2"),
    ],
    ids=str,
)
def test_what_is_not_understood_is_refused_by_name(variant: str, keys: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError) as error:
        spec_from_config(with_keys(variant, **keys))
    assert found in str(error.value)


def test_limits_of_time_steps_reach_the_mixer() -> None:
    mixer = spec_from_config(config_of("mamba2-limits")).layers[0].mixer
    assert isinstance(mixer, Mamba2)
    assert (mixer.shortest_step, mixer.longest_step) == (0.5, 1.0)
    mixer = spec_from_config(config_of("mamba2")).layers[0].mixer
    assert isinstance(mixer, Mamba2)
    assert (mixer.shortest_step, mixer.longest_step) == (0.0, math.inf)


def test_layers_of_hybrids_are_where_the_config_says() -> None:
    jamba = spec_from_config(config_of("jamba"))
    assert [type(layer.mixer) for layer in jamba.layers] == [Mamba, Attention, Mamba, Mamba, Attention]
    nemotron = spec_from_config(config_of("nemotron-h-experts"))
    kinds = [type(layer.mixer or layer.channel).__name__ for layer in nemotron.layers]
    assert kinds == ["Mamba2", "MoE", "Attention", "MoE", "Mamba2", "MoE"]
    assert [layer.norms for layer in nemotron.layers[:2]] == [("mixer_norm",), ("channel_norm",)]
