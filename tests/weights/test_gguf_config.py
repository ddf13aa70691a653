"""GGUF metadata as Hugging Face configs: what transformers and the families make of them, and what is refused."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_maker import ARCHITECTURES, Shape, make_gguf

from macllm.errors import ConfigError
from macllm.families import spec_from_config
from macllm.spec import LinearScaling, Llama3Scaling, TableScaling, YarnScaling
from macllm.weights.gguf.config import hf_config
from macllm.weights.gguf.names import gguf_naming
from macllm.weights.gguf_file import GGUFFile


def config_of(
    folder: Path, arch: str = "llama", keys: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """The config of a tiny model with some keys added, replaced or (None) removed."""
    whole = ("tokenizer.", "general.")
    keys = {key if key.startswith(whole) else f"{arch}.{key}": value for key, value in (keys or {}).items()}
    path = make_gguf(folder / "model.gguf", arch, keys=keys, **options).path
    file = GGUFFile.open(path)
    return hf_config(file.metadata, file.tensors, file.metadata.where)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_families_and_tensors_agree_with_the_config(arch: str, tmp_path: Path) -> None:
    """Every tensor the family asks for is in the file with its shape, and none is left over."""
    file = GGUFFile.open(make_gguf(tmp_path / "x.gguf", arch).path)
    spec = spec_from_config(hf_config(file.metadata, file.tensors))
    asked = {
        name: shape
        for relation in gguf_naming(spec, arch).relations()
        for name, shape in zip(relation.stored, relation.stored_shapes(), strict=True)
    }
    assert asked == {name: tensor.shape for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_transformers_builds_the_same_model(arch: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = config_of(tmp_path, arch)
    shape = Shape(7 if arch == "gemma3" else 2)
    known = AutoConfig.for_model(**config)
    assert known.architectures == config["architectures"]
    assert (known.hidden_size, known.intermediate_size) == (shape.dim, shape.hidden)
    assert (known.num_hidden_layers, known.max_position_embeddings) == (shape.layers, shape.context)
    assert (known.num_attention_heads, known.num_key_value_heads) == (shape.heads, shape.kv_heads)
    assert known.rms_norm_eps == 1e-6
    assert known.tie_word_embeddings == (arch == "gemma3")
    unknown = [key for key in config if key not in known.to_dict() and key not in TRANSLATED]
    assert not unknown, "transformers does not know these keys"
    if arch == "gemma3":
        assert known.layer_types == ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]
        assert known.sliding_window == shape.window
        assert known.rope_parameters["full_attention"]["rope_theta"] == 1_000_000.0
        assert known.rope_parameters["sliding_attention"]["rope_theta"] == 10_000.0
    else:
        assert known.rope_parameters["rope_theta"] == config["rope_theta"]


TRANSLATED = {"rope_theta", "rope_local_base_freq", "sliding_window_pattern", "head_dim"}


@pytest.mark.starter
def test_the_starter_is_the_model_its_authors_published(starter_gguf: Path) -> None:
    file = GGUFFile.open(starter_gguf)
    assert hf_config(file.metadata, file.tensors) == {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "rms_norm_eps": 1e-05,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "vocab_size": 49152,
    }


# --- optional keys


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_is_tied_where_it_is_not_stored(tied: bool, tmp_path: Path) -> None:
    assert config_of(tmp_path, tied=tied)["tie_word_embeddings"] is tied


def test_missing_keys_have_llama_cpp_s_defaults(tmp_path: Path) -> None:
    config = config_of(tmp_path, keys={"attention.head_count_kv": None, "rope.freq_base": None})
    assert config["num_key_value_heads"] == config["num_attention_heads"] == 4
    assert config["rope_theta"] == 10_000.0
    assert config["head_dim"] == 64  # embedding_length / head_count


def test_head_width_comes_from_its_key(tmp_path: Path) -> None:
    keys = {"attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 32}
    assert config_of(tmp_path, keys=keys)["head_dim"] == 32


def test_rotating_part_of_a_head_is_passed_on(tmp_path: Path) -> None:
    assert config_of(tmp_path, keys={"rope.dimension_count": 16})["partial_rotary_factor"] == 0.25


def test_per_layer_values_pass_where_they_are_all_the_same(tmp_path: Path) -> None:
    assert config_of(tmp_path, keys={"attention.head_count_kv": [2, 2]})["num_key_value_heads"] == 2


def test_biases_are_found_by_their_tensors(tmp_path: Path) -> None:
    weights = {"blk.0.attn_q.bias": np.zeros(256, np.float32), "blk.0.ffn_up.bias": np.zeros(512, np.float32)}
    config = config_of(tmp_path, weights=weights)
    assert config["attention_bias"] is True
    assert config["mlp_bias"] is True
    assert "attention_bias" not in config_of(tmp_path)


def test_a_window_makes_a_llama_file_mistral(tmp_path: Path) -> None:
    config = config_of(tmp_path, keys={"attention.sliding_window": 64})
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 64)
    assert {layer.mixer.window for layer in spec_from_config(config).layers} == {64}


def test_a_window_as_long_as_the_context_is_none(tmp_path: Path) -> None:
    assert config_of(tmp_path, keys={"attention.sliding_window": 512})["model_type"] == "llama"
    assert config_of(tmp_path, "qwen2", keys={"attention.sliding_window": 512})["model_type"] == "qwen2"


def test_every_end_token_is_named_once(tmp_path: Path) -> None:
    ids = {
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.eom_token_id": 2,
    }
    assert config_of(tmp_path, keys=ids)["eos_token_id"] == [2, 5]


# --- gemma 3


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, [True] * 5 + [False, True]),
        (3, [True, True, False] * 2 + [True]),
        ([True, False] * 3 + [True], [True, False] * 3 + [True]),
        ([False] * 7, [False] * 7),
    ],
)
def test_gemma3_window_pattern(pattern: Any, expected: list[bool], tmp_path: Path) -> None:
    config = config_of(tmp_path, "gemma3", keys={"attention.sliding_window_pattern": pattern})
    windows = [layer.mixer.window for layer in spec_from_config(config).layers]
    assert windows == [32 if sliding else None for sliding in expected]


def test_gemma3_without_a_window_attends_to_everything(tmp_path: Path) -> None:
    config = config_of(tmp_path, "gemma3", keys={"attention.sliding_window": None})
    assert spec_from_config(config).windows == (None,)


def test_gemma3_rope_bases(tmp_path: Path) -> None:
    config = config_of(tmp_path, "gemma3", keys={"rope.freq_base": 5e5, "rope.freq_base_swa": 2e4})
    layers = spec_from_config(config).layers
    assert (layers[0].mixer.rope.base, layers[5].mixer.rope.base) == (2e4, 5e5)


def test_gemma3_scaling_reaches_the_full_layers_only(tmp_path: Path) -> None:
    keys = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    layers = spec_from_config(config_of(tmp_path, "gemma3", keys=keys)).layers
    assert layers[0].mixer.rope.scaling is None
    assert layers[5].mixer.rope.scaling == LinearScaling(8.0)


@pytest.mark.parametrize(("layers", "scale"), [(7, 64**-0.5), (62, (256 / 2) ** -0.5)])
def test_gemma3_27b_scales_by_width_over_heads(layers: int, scale: float, tmp_path: Path) -> None:
    keys = {"attention.head_count": 2, "attention.head_count_kv": 1, "block_count": layers}
    config = config_of(tmp_path, "gemma3", keys=keys)
    assert math.isclose(spec_from_config(config).layers[0].mixer.scale, scale)


def test_gemma3_soft_capping_is_passed_on(tmp_path: Path) -> None:
    """The family refuses it by name; dropping it here would change the answers."""
    assert (
        config_of(tmp_path, "gemma3", keys={"final_logit_softcapping": 30.0})["final_logit_softcapping"]
        == 30.0
    )


# --- rope scaling


def scaling_of(folder: Path, keys: Mapping[str, Any], arch: str = "qwen2") -> Any:
    return spec_from_config(config_of(folder, arch, keys)).layers[0].mixer.rope.scaling


def test_no_scaling(tmp_path: Path) -> None:
    assert scaling_of(tmp_path, {}) is None
    assert scaling_of(tmp_path, {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}) is None
    assert scaling_of(tmp_path, {"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        {"rope.scaling.factor": 4.0},
        {"rope.scale_linear": 4.0},
        {
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 128,
            "rope.scaling.finetuned": True,
        },
    ],
)
def test_linear_scaling(keys: dict[str, Any], tmp_path: Path) -> None:
    assert scaling_of(tmp_path, keys) == LinearScaling(4.0)


def test_yarn(tmp_path: Path) -> None:
    keys = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 128,
        "rope.scaling.yarn_beta_fast": 16.0,
    }
    assert scaling_of(tmp_path, keys) == YarnScaling(4.0, 128, beta_fast=16.0)


def llama3_factors(factor: float, low: float, high: float, context: int) -> np.ndarray:
    """What transformers divides each frequency by."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, rope_parameters=rope)
    scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    return (500_000.0 ** -(np.arange(0, 64, 2) / 64) / scaled).astype(np.float32)


def with_factors(folder: Path, factors: np.ndarray, **keys: Any) -> dict[str, Any]:
    weights = {"rope_freqs.weight": factors.astype(np.float32)}
    return config_of(folder, keys={"rope.freq_base": 500_000.0, **keys}, weights=weights)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recognized_in_its_factors(factor: float, tmp_path: Path) -> None:
    """So that a converted model's config says what mlx-lm and transformers understand."""
    config = with_factors(tmp_path, llama3_factors(factor, 1.0, 4.0, 8192))
    assert config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert spec_from_config(config).layers[0].mixer.rope.scaling == Llama3Scaling(factor, 1.0, 4.0, 8192)


def test_other_factors_are_passed_on_as_they_are(tmp_path: Path) -> None:
    factors = llama3_factors(8.0, 2.0, 6.0, 4096)
    scaling = spec_from_config(with_factors(tmp_path, factors)).layers[0].mixer.rope.scaling
    assert isinstance(scaling, TableScaling)
    assert np.array_equal(np.array(scaling.factors, np.float32), factors)


def test_factors_of_one_scale_nothing(tmp_path: Path) -> None:
    assert "rope_scaling" not in with_factors(tmp_path, np.ones(32))


# --- what is refused


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block_count": None}, r"llama\.block_count is missing"),
        ({"embedding_length": None}, r"llama\.embedding_length is missing"),
        ({"attention.layer_norm_rms_epsilon": None}, r"llama\.attention\.layer_norm_rms_epsilon is missing"),
        ({"block_count": 0}, r"llama\.block_count=0 is not supported"),
        ({"block_count": "two"}, r"llama\.block_count='two' is not supported"),
        ({"block_count": 4_000_000_000}, "announces 4000000000 layers"),
        ({"attention.head_count": 1000}, r"llama\.attention\.key_length is missing"),
        ({"rope.freq_base": float("nan")}, r"llama\.rope\.freq_base=nan"),
        (
            {"attention.head_count_kv": [1, 2]},
            r"llama\.attention\.head_count_kv=\[1, 2\] .* the same for all layers",
        ),
        ({"attention.value_length": 32}, r"llama\.attention\.value_length=32 .*expected 64"),
        ({"attention.causal": False}, r"llama\.attention\.causal=False"),
        ({"expert_count": 8}, r"llama\.expert_used_count is missing"),
        ({"expert_shared_count": 1}, r"llama\.expert_shared_count=1 is not supported"),
        ({"attention.scale": 0.5}, r"llama\.attention\.scale=0\.5 is not supported"),
        ({"rope.scaling.type": "longrope"}, r"llama\.rope\.scaling\.type='longrope' .*'yarn'"),
        ({"rope.scaling.type": "yarn", "rope.scaling.attn_factor": 2.0}, r"attn_factor=2\.0"),
        ({"general.architecture": "clip"}, "general.architecture='clip' is not one of the"),
    ],
)
def test_what_cannot_be_honoured_is_named(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config_of(tmp_path, keys=keys)
    assert str(caught.value).startswith("model.gguf: ")


def test_keys_that_switch_nothing_on_pass(tmp_path: Path) -> None:
    config_of(
        tmp_path,
        keys={"expert_count": 0, "attention.clamp_kqv": 0.0, "vocab_size": 7},
    )


def test_a_window_that_qwen_files_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qwen3\.attention\.sliding_window=64"):
        config_of(tmp_path, "qwen3", keys={"attention.sliding_window": 64})


def test_a_file_without_an_architecture_or_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"general\.architecture is missing"):
        hf_config({}, {})
    with pytest.raises(ConfigError, match=r"token_embd\.weight' is missing"):
        hf_config({"general.architecture": "llama"}, {})


@pytest.mark.parametrize("factors", [np.zeros(32), np.full(32, np.nan), np.ones(16)])
def test_damaged_factors_are_refused(factors: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rope_freqs\.weight"):
        with_factors(tmp_path, factors)


def test_factors_beside_another_scaling_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rope\.scaling\.type='linear' .*rope_freqs"):
        with_factors(tmp_path, np.full(32, 2.0), **{"rope.scaling.type": "linear"})
