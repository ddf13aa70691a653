"""Configs of mixtures: what is left out means what it means to the original, and what is not understood is refused."""

from typing import Any

import pytest
from tiny import config_of

from macllm.errors import ConfigError
from macllm.families import spec_from_config
from macllm.spec import Attention, MoE, YarnScaling

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("qwen2-moe", {"layer_types": ["sliding_attention"] * 3}, "use_sliding_window=False"),
    ("qwen2-moe", {"mlp_only_layers": 2}, "mlp_only_layers=2"),
    ("qwen2-moe", {"decoder_sparse_step": 0}, "decoder_sparse_step=0"),
    ("qwen3-moe", {"num_experts_per_tok": 9}, "num_experts_per_tok=9"),
    ("qwen3-moe", {"num_local_experts": 4}, "num_local_experts=4"),
    ("qwen3-moe", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ("qwen3-moe", {"shared_expert_intermediate_size": 32}, "shared_expert_intermediate_size=32"),
    ("olmoe", {"clip_qkv": -1.0}, "clip_qkv=-1.0"),
    ("gpt-oss", {"swiglu_limit": 8.0}, "swiglu_limit=8.0"),
    ("gpt-oss", {"swiglu_alpha": 1.0}, "swiglu_alpha=1.0"),
    ("deepseek-v2", {"norm_topk_prob": True}, "norm_topk_prob=True"),
    ("deepseek-v2", {"scoring_func": "sigmoid"}, "scoring_func='sigmoid'"),
    ("deepseek-v2", {"topk_method": "noaux_tc"}, "topk_method='noaux_tc'"),
    ("deepseek-v2", {"n_group": 3}, "n_group=3"),
    ("deepseek-v2", {"topk_group": 1}, "topk_group=1"),  # two experts a group, and three are chosen
    ("deepseek-v3", {"topk_group": 5}, "topk_group=5"),
    ("deepseek-v3", {"moe_layer_freq": 2}, "moe_layer_freq=2"),
    ("glm4-moe", {"topk_method": "greedy"}, "topk_method='greedy'"),
    ("minimax-m2-published", {"scoring_func": "softmax"}, "scoring_func='softmax'"),
    ("minimax-m2-published", {"use_routing_bias": False}, "use_routing_bias=False"),
    ("minimax-m2-published", {"shared_intermediate_size": 64}, "shared_intermediate_size=64"),
    # MiniMax-Text-01, as its authors and as transformers name its layers
    ("minimax-m2-first-name", {"attn_type_list": [0, 0, 1]}, "attn_type_list=0"),
    ("minimax-m2-first-name", {"layer_types": ["linear_attention"] * 3}, "layer_types='linear_attention'"),
    ("minimax-m2-first-name", {"scoring_func": None}, "scoring_func=None"),
    ("phimoe", {"num_experts_per_tok": 3}, "num_experts_per_tok=3"),
    ("granite-moe", {"activation_function": "gelu"}, "activation_function='gelu'"),
    ("ernie-moe", {"moe_gate_act": "sigmoid"}, "moe_gate_act='sigmoid'"),
    ("ernie-moe", {"num_experts": 9}, "moe_num_experts=8"),
    ("llama4-scout", {"no_rope_layers": [1, 0]}, "no_rope_layers=[1, 0]"),
    ("llama4-scout", {"layer_types": ["sliding_attention"] * 5}, "layer_types='sliding_attention'"),
    ("llama4-scout", {"attn_temperature_tuning": 3}, "attn_temperature_tuning=3"),
]


@pytest.mark.parametrize(("variant", "changes", "named"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_not_understood_is_refused_by_name(variant: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_from_config({**config_of(variant), **changes})
    assert named in str(caught.value)
    assert "expected" in str(caught.value) or "is not known to family" in str(caught.value)


def without(variant: str, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config_of(variant).items() if key not in keys}


def test_gpt_oss_without_rope_has_its_own() -> None:
    spec = spec_from_config(without("gpt-oss", "rope_scaling", "rope_theta", "sliding_window", "head_dim"))
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, Attention)
    assert mixer.rope is not None
    assert mixer.rope.base == 150_000.0
    assert mixer.rope.scaling == YarnScaling(32.0, 4096, truncate=False)
    assert (mixer.window, mixer.head_dim) == (128, 64)


@pytest.mark.parametrize(
    ("variant", "layers", "changes", "sparse"),
    [
        ("qwen3-moe", 4, {"mlp_only_layers": [0], "decoder_sparse_step": 2}, [1, 3]),
        ("qwen2-moe", 4, {"mlp_only_layers": None}, [0, 1, 2, 3]),
        ("deepseek-v3", 5, {"first_k_dense_replace": None}, [3, 4]),
        ("deepseek-v2", 3, {"first_k_dense_replace": None}, [0, 1, 2]),
        ("glm4-moe", 3, {"first_k_dense_replace": None}, [1, 2]),
        ("ernie-moe", 4, {"moe_layer_start_index": 2, "moe_layer_end_index": 2}, [2]),
        ("llama4-maverick", 6, {}, [1, 3, 5]),
        ("llama4-maverick", 6, {"moe_layers": [0, 4]}, [0, 4]),
    ],
)
def test_which_layers_have_experts(
    variant: str, layers: int, changes: dict[str, Any], sparse: list[int]
) -> None:
    spec = spec_from_config({**config_of(variant), "num_hidden_layers": layers, **changes})
    assert [i for i, layer in enumerate(spec.layers) if isinstance(layer.channel, MoE)] == sparse


def test_the_number_of_experts_goes_by_either_name() -> None:
    config = config_of("qwen3-moe")
    count = config.pop("num_experts")
    assert spec_from_config({**config, "num_local_experts": count}) == spec_from_config(
        config_of("qwen3-moe")
    )
