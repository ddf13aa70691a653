"""Configs are read strictly: what could change the maths and is not understood is refused by name and value."""

from typing import Any

import pytest
from tiny import config_of, variants

from macllm.errors import ConfigError
from macllm.families import FAMILIES, is_native, spec_from_config
from macllm.spec import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    Rope,
    TableScaling,
    YarnScaling,
)

FAMILY_VARIANTS = ["llama", "mistral", "qwen2", "qwen3", "gemma3"]


def refused(variant: str, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        spec_from_config({**config_of(variant), **changes}, "somewhere/config.json")
    message = str(caught.value)
    assert message.startswith("somewhere/config.json: ")
    assert "\n" not in message
    return message


def without(variant: str, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config_of(variant).items() if key not in keys}


def test_every_family_has_a_variant() -> None:
    assert {config_of(variant)["model_type"] for variant in variants()} == set(FAMILIES)


@pytest.mark.parametrize("variant", FAMILY_VARIANTS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_sink_size", 4),
        ("logit_scale", 0.0625),
        ("use_parallel_residual", True),
        ("sliding_window_layers", [1, 2]),
        ("embedding_multiplier", 12.0),
        ("num_local_experts", 8),
    ],
)
def test_an_unknown_key_with_an_effect_is_refused_by_name_and_value(
    variant: str, key: str, value: Any
) -> None:
    assert f"{key}={value!r}" in refused(variant, **{key: value})


@pytest.mark.parametrize("variant", FAMILY_VARIANTS)
def test_harmless_keys_pass(variant: str) -> None:
    harmless = {
        "architectures": ["AnyForCausalLM"],
        "torch_dtype": "bfloat16",
        "dtype": "float32",
        "transformers_version": "4.40.0",
        "use_cache": True,
        "initializer_range": 0.02,
        "attention_dropout": 0.1,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "_name_or_path": "somebody/model",
        "unsloth_fixed": True,
        "quantization": {"group_size": 64, "bits": 4},
        "some_switch": False,
        "some_setting": None,
    }
    assert spec_from_config({**config_of(variant), **harmless}) == spec_from_config(config_of(variant))


@pytest.mark.parametrize("variant", FAMILY_VARIANTS)
@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    ],
)
def test_a_missing_key_is_named(variant: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"config.json: '{key}' is missing and family"):
        spec_from_config(without(variant, key))


@pytest.mark.parametrize(
    ("variant", "key", "value"),
    [
        ("llama", "hidden_act", "sine"),
        ("llama", "hidden_act", "gelu"),
        ("qwen3", "hidden_act", ["silu"]),
        ("gemma3", "hidden_activation", "silu"),
        ("gemma3", "hidden_act", "silu"),
        ("gemma3", "final_logit_softcapping", 30.0),
        ("gemma3", "attn_logit_softcapping", 50.0),
        ("gemma3", "use_bidirectional_attention", True),
        ("gemma3", "layer_types", ["full_attention"]),
        ("gemma3", "layer_types", "full_attention"),
        ("llama", "hidden_size", "48"),
        ("llama", "hidden_size", 48.0),
        ("llama", "hidden_size", True),
        ("llama", "hidden_size", [48]),
        ("llama", "hidden_size", 0),
        ("llama", "num_hidden_layers", -1),
        ("llama", "num_attention_heads", 7),
        ("llama", "num_key_value_heads", 4),
        ("llama", "head_dim", 7),
        ("llama", "head_dim", 0),
        ("llama", "rms_norm_eps", 0),
        ("llama", "rms_norm_eps", "1e-5"),
        ("llama", "rms_norm_eps", float("nan")),
        ("llama", "rope_theta", float("inf")),
        ("llama", "rope_theta", -1.0),
        ("llama", "tie_word_embeddings", "yes"),
        ("llama", "attention_bias", 1),
        ("llama", "pretraining_tp", 3),
        ("llama", "rope_interleaved", True),
        ("llama", "partial_rotary_factor", 0.5),
        ("phi", "partial_rotary_factor", 0.4),
        ("phi", "partial_rotary_factor", 1.5),
        ("llama", "rope_scaling", "linear"),
        ("llama", "rope_parameters", [1]),
        ("mistral", "sliding_window", "4096"),
        ("mistral", "sliding_window", 0),
        ("qwen2", "use_sliding_window", "no"),
        ("qwen2", "use_mrope", True),
        ("qwen2", "max_window_layers", -1),
    ],
)
def test_a_value_that_is_not_supported_is_named(variant: str, key: str, value: Any) -> None:
    message = refused(variant, **{key: value})
    assert f"{key}={value!r}" in message
    assert "expected" in message


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        ({"rope_type": "dynamic"}, "'factor' is missing"),
        ({"rope_type": "dynamic", "factor": 2.0, "alpha": 1000.0}, "alpha=1000.0"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}, "short_factor=[1.0]"),
        ({"type": "su", "short_factor": [1.0, 2, 3, 4], "long_factor": [1.0, 2, 3, "4"]}, "long_factor=["),
        ({"type": "telescopic"}, "rope_type='telescopic'"),
        ({"rope_type": "linear", "factor": 2.0, "llama_4_scaling_beta": 0.1}, "llama_4_scaling_beta=0.1"),
        ({"rope_type": ["linear"]}, "rope_type=['linear']"),
        ({"rope_type": "linear"}, "'factor' is missing"),
        ({"rope_type": "linear", "factor": "2"}, "factor='2'"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}, "'high_freq_factor' is missing"),
        ({"rope_type": "yarn", "factor": 4.0, "mscale": "0.7", "mscale_all_dim": 1.0}, "mscale='0.7'"),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1.5}, "=1.5"),
        ({"rope_type": "table", "factors": [1.0]}, "factors=[1.0]"),
    ],
)
def test_a_rope_scaling_that_is_not_understood_is_refused(scaling: dict[str, Any], named: str) -> None:
    for form in ("rope_scaling", "rope_parameters"):
        message = refused("llama", **{form: scaling})
        assert named in message
        assert form in message


def test_layer_types_of_an_unknown_kind_are_named() -> None:
    kinds = ["full_attention", "chunked_attention", "full_attention"]
    assert "layer_types='chunked_attention'" in refused("qwen3", layer_types=kinds)


def test_sliding_layers_need_the_switch() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    assert "use_sliding_window=False" in refused("qwen2", layer_types=kinds, sliding_window=8)


def test_gemma_needs_rope_parameters_by_kind_of_layer() -> None:
    assert "rope_theta" in refused("gemma3", rope_parameters={"rope_type": "default", "rope_theta": 1e6})


def test_no_or_another_model_type() -> None:
    with pytest.raises(ConfigError, match="there is no 'model_type'"):
        spec_from_config({})
    with pytest.raises(ConfigError, match=r"'nemotron' has no native family; `macllm families`"):
        spec_from_config({"model_type": "nemotron"})
    assert not is_native({"model_type": "nemotron"})
    assert not is_native({})
    assert is_native({"model_type": "gemma3_text"})


@pytest.mark.parametrize("variant", ["mistral", "mistral-window", "qwen2", "qwen3", "gemma3", "llama"])
def test_a_missing_key_means_what_it_means_to_the_original(variant: str) -> None:
    """A key that is left out is not one that is null: Mistral without ``sliding_window`` has a window of 4096."""
    from transformers import AutoConfig

    optional = (
        "num_key_value_heads sliding_window head_dim rms_norm_eps rope_theta query_pre_attn_scalar "
        "tie_word_embeddings max_window_layers attention_bias"
    ).split()
    heads = {"num_attention_heads": 32, "hidden_size": 4096}
    values = {**without(variant, *optional), **heads, "num_hidden_layers": 32}
    if "qwen" in variant:
        values["use_sliding_window"] = True
    spec = spec_from_config(values)
    original = AutoConfig.for_model(**values)
    layer = spec.layers[-1].mixer
    assert layer.kv_heads == original.num_key_value_heads
    assert layer.head_dim == (getattr(original, "head_dim", None) or 4096 // 32)
    assert spec.norm.eps == original.rms_norm_eps
    assert spec.tied == original.tie_word_embeddings
    if hasattr(original, "sliding_window"):
        assert max(window or 0 for window in spec.windows) == original.sliding_window
    if hasattr(original, "layer_types"):
        kinds = ["full_attention" if x.mixer.window is None else "sliding_attention" for x in spec.layers]
        assert kinds == original.layer_types
    if hasattr(original, "query_pre_attn_scalar"):
        assert layer.scale == original.query_pre_attn_scalar**-0.5


def rope_of(**changes: Any) -> Rope:
    rope = spec_from_config({**config_of("llama"), **changes}).layers[0].mixer.rope
    assert rope is not None
    return rope


def test_each_scaling_becomes_its_own_type() -> None:
    llama3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    assert rope_of().scaling is None
    assert rope_of(rope_scaling={"rope_type": "default"}).scaling is None
    assert rope_of(rope_scaling={"type": "linear", "factor": 2}).scaling == LinearScaling(2.0)
    assert rope_of(rope_scaling=llama3).scaling == Llama3Scaling(8.0, 1.0, 4.0, 512)
    assert rope_of(rope_scaling={"type": "yarn", "factor": 4}).scaling == YarnScaling(4.0, 512)
    assert rope_of(rope_scaling={"type": "dynamic", "factor": 2}).scaling == DynamicScaling(2.0, 512)
    factors = [1.0, 2.0, 4.0, 8.0]
    long = {"type": "longrope", "short_factor": factors, "long_factor": factors[::-1], "factor": 16}
    short, longer = TableScaling((*factors,), 1.2), TableScaling((*factors[::-1],), 1.2)
    stated = rope_of(rope_scaling={**long, "attention_factor": 1.2, "original_max_position_embeddings": 64})
    assert stated.scaling == LongScaling(short, longer, 64)
    assert rope_of(rope_scaling={"type": "table", "factors": factors}).scaling == TableScaling((*factors,))
