"""Bytes by arithmetic against bytes on disk and in memory."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import config_of, native, tokens, variants, write_with_mlx_lm

from macllm import sizes
from macllm.families import spec_from_config
from macllm.nn.cache import make_caches
from macllm.quantization import Quantization, QuantizationPlan
from macllm.weights.model_files import ModelFiles, open_model

CONFIGS = Path(__file__).parent / "configs"


def mixed(path: str, module: object) -> bool | dict[str, Any]:
    if path.endswith("v_proj"):
        return {"bits": 8, "group_size": 32}
    return {"mode": "mxfp4", "bits": 4, "group_size": 32} if "layers.1" in path else True


@pytest.mark.parametrize("variant", ["llama", "llama-biases", "qwen2-tied", "qwen3", "gemma3"])
@pytest.mark.parametrize(
    "quantization",
    [
        {},
        {"bits": 4, "group_size": 64},
        {"bits": 3, "group_size": 32},
        {"bits": 6, "group_size": 128},
        {"bits": 8, "group_size": 128},
        {"mode": "mxfp4"},
        {"mode": "mxfp8"},
        {"mode": "nvfp4"},
        {"bits": 4, "group_size": 64, "predicate": mixed},
    ],
    ids=["plain", "4-64", "3-32", "6-128", "8-128", "mxfp4", "mxfp8", "nvfp4", "mixed"],
)
def test_weight_bytes_are_those_of_the_file(
    variant: str, quantization: dict[str, Any], tmp_path: Path
) -> None:
    """From the config alone, before anything else is there."""
    write_with_mlx_lm(variant, tmp_path, dtype="bfloat16", **quantization)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = ModelFiles(tmp_path, open_model(tmp_path).config)
    assert sizes.weight_bytes(files.spec, files.formats()) == index["metadata"]["total_size"]


def test_a_matrix_whose_input_is_no_multiple_of_the_group_stays_plain(tmp_path: Path) -> None:
    """96 is no multiple of 64: MLX's tools leave such a matrix plain, and so it is counted."""
    config = {**config_of("llama"), "hidden_size": 96, "intermediate_size": 128, "num_attention_heads": 6}
    config["quantization"] = {"group_size": 64, "bits": 4}
    formats = ModelFiles(tmp_path, config).formats()
    assert formats["layers.0.channel.down.weight"] == Quantization(4, 64)
    assert formats["layers.0.channel.up.weight"] is None
    assert formats["embed.weight"] is None


@pytest.mark.parametrize(
    "quantization",
    [Quantization(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
    + [Quantization(4, 32, "mxfp4"), Quantization(8, 32, "mxfp8"), Quantization(4, 16, "nvfp4")],
    ids=str,
)
def test_bytes_of_a_packing_are_mlxs(quantization: Quantization) -> None:
    weight = mx.random.normal((24, 384)).astype(mx.bfloat16)
    arrays = mx.quantize(weight, quantization.group_size, quantization.bits, quantization.mode)
    assert quantization.nbytes(24 * 384) == sum(array.nbytes for array in arrays)


def test_a_quantization_plan_survives_its_config() -> None:
    plan = QuantizationPlan(Quantization(4, 64), {"a.b": Quantization(8, 32), "c": None})
    assert QuantizationPlan.from_config({"quantization": plan.to_config()}) == plan
    assert QuantizationPlan.from_config({"quantization_config": plan.to_config()}) == plan
    assert QuantizationPlan.from_config({}) == QuantizationPlan()
    assert [plan.of(name) for name in ("a.b", "c", "other")] == [
        Quantization(8, 32),
        None,
        Quantization(4, 64),
    ]


@pytest.mark.parametrize("variant", variants())
def test_kv_bytes_are_those_of_a_models_caches(variant: str, tmp_path: Path) -> None:
    model = native(variant)
    caches = model.make_caches()
    for count in (1, 4, 20):
        model(mx.array([tokens(count)]), caches)
        held = sum(cache.nbytes for cache in caches)
        assert held == sizes.kv_bytes(model.spec, caches[0].offset, value_bytes=4)
    assert sizes.kv_bytes(model.spec, 0) == 0


@pytest.mark.parametrize(
    ("name", "per_token", "at_8k"),
    [
        ("llama-3.1-8b", 131_072, 2**30),  # 32 layers x 8 heads x 128 x 2 x 2 bytes
        ("qwen3-8b", 147_456, 147_456 * 8192),
        ("smollm2-135m", 23_040, 23_040 * 8192),
        ("gemma-3-1b-it", 26_624, (4 * 8192 + 22 * 512) * 1024),  # four full layers, 22 that remember 512
    ],
)
def test_kv_bytes_of_real_models(name: str, per_token: int, at_8k: int) -> None:
    spec = spec_from_config(json.loads((CONFIGS / f"{name}.json").read_text()))
    assert sizes.kv_bytes_per_token(spec) == per_token
    assert sizes.kv_bytes(spec, 8192) == at_8k


def test_adapter_sizes_are_those_of_lora_on_every_layer_matrix() -> None:
    """LoRA of rank r on (O, I): r * (O + I) values."""
    spec = spec_from_config(config_of("llama"))
    attention = (48 + 48) + 2 * (16 + 48) + (48 + 48)
    assert sum(sizes.adapter_tensors(spec, rank=4)) == 4 * 3 * (attention + 3 * (48 + 80))


def test_working_bytes_grow_by_the_cache() -> None:
    spec = spec_from_config(config_of("gemma3"))
    growth = sizes.working_bytes(spec, 0, 300) - sizes.working_bytes(spec, 0, 100)
    assert growth == sizes.held_bytes(spec, 300) - sizes.held_bytes(spec, 100) > 0


def test_held_bytes_cover_what_caches_allocate() -> None:
    spec = spec_from_config(config_of("gemma3"))
    model_caches = make_caches(spec)
    for length in (30, 1, 1, 40, 1, 60):
        for cache, held in zip(model_caches, spec.caches, strict=True):
            shape = (1, held.heads, length, held.key_dim)
            cache.update(mx.zeros(shape, mx.float16), mx.zeros(shape, mx.float16))
        allocated = sum(cache.allocated_bytes for cache in model_caches)
        seen = sum(cache.nbytes for cache in model_caches)
        tokens = model_caches[0].offset
        assert seen == sizes.kv_bytes(spec, tokens)
        assert sizes.held_bytes(spec, tokens) >= seen
        # buffers grow in steps of 256, which weighs on a tiny model only
        assert allocated <= sizes.held_bytes(spec, -(-tokens // 256) * 256)
