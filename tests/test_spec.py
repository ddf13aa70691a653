"""The spec against facts: real models' published parameter counts, and what follows from the layers."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from tiny import config_of, variants

from macllm.families import spec_from_config
from macllm.families.registry import FAMILIES
from macllm.spec import ModelSpec

CONFIGS = Path(__file__).parent / "configs"
# as the models' own pages state them (safetensors metadata)
PUBLISHED = {
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-8b": 8_030_261_248,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "gemma-3-1b-it": 999_885_952,
    "bitnet-b1.58-2b-4t": 2_412_820_480,
    "bloom-560m": 559_214_592,
    "c4ai-command-r-v01": 34_980_831_232,
    "command-a-03-2025": 111_057_580_032,
    "command-r-08-2024": 32_296_476_672,
    "deepseek-r1": 671_026_419_200,  # with 14_848 that transformers keeps as buffers
    "deepseek-v2-lite": 15_706_484_224,
    "ernie-4.5-0.3b-pt": 360_748_032,
    "exaone-4.0-1.2b": 1_279_391_488,
    "exaone-4.0-32b": 32_003_216_384,
    "falcon-7b": 6_921_720_704,
    "falcon-h1-0.5b-base": 521_411_104,
    "falcon-rw-1b": 1_311_625_216,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2b": 2_506_172_416,
    "glm-4-9b-0414": 9_400_279_040,
    "glm-4.5-air": 106_852_251_264,  # with 5_760 that transformers keeps as buffers
    "gpt-oss-20b": 20_914_757_184,
    "gpt2": 124_439_808,
    "granite-3.1-1b-a400m-base": 1_334_628_352,
    "granite-3.3-2b-instruct": 2_533_539_840,
    "granite-4.0-h-tiny": 6_939_037_248,
    "hunyuan-0.5b-instruct": 539_010_048,
    "jamba-v0.1": 51_570_323_328,
    "lfm2-1.2b": 1_170_340_608,
    "lfm2-350m": 354_483_968,
    "mamba-130m-hf": 129_135_360,
    "mamba-codestral-7b-v0.1": 7_285_403_648,
    "mamba2-130m-hf": 128_989_632,
    "minimax-m2": 228_689_764_864,  # with 15_872 that transformers keeps as buffers
    "ministral-3-3b-text": 3_429_006_336,
    "mixtral-8x7b-v0.1": 46_702_792_704,
    "mpt-7b": 6_649_286_656,
    "nanochat-d20": 560_988_160,
    "nemotron-3-nano-30b-a3b": 31_577_940_288,  # with 2_944 that transformers keeps as buffers
    "nemotron-nano-9b-v2": 8_888_227_328,
    "olmo-1b-hf": 1_176_764_416,
    "olmo-2-0425-1b": 1_484_916_736,
    "olmo-2-1124-7b": 7_298_617_344,
    "olmo-3-1025-7b": 7_298_011_136,
    "olmoe-1b-7b-0924": 6_919_161_856,
    "phi-2": 2_779_683_840,
    "phi-3-mini-128k-instruct": 3_821_079_552,
    "phi-3-mini-4k-instruct": 3_821_079_552,
    "phi-3.5-moe-instruct": 41_873_153_344,
    "phi-4": 14_659_507_200,
    "pythia-160m": 162_322_944,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-next-80b-a3b": 79_674_391_296,
    "qwen3.5-27b-text": 26_895_998_464,
    "qwen3.5-35b-a3b-text": 34_660_610_688,
    "rwkv7-0.1b": 191_034_624,
    "seed-oss-36b-instruct": 36_151_104_512,
    "smollm3-3b": 3_075_098_624,
    "stablelm-2-1_6b": 1_644_515_328,
    "stablelm-3b-4e1t": 2_795_443_200,
    "starcoder2-3b": 3_030_371_328,
}
# families of which no real config is here: other names, or near relatives, of ones above
WITHOUT = set(
    "apertus arcee bamba dots1 ernie4_5_moe falcon_mamba glm glm4_moe_lite helium internlm3 kimi_k2 lfm2_moe "
    "llama4_text mimo minimax ministral olmo_hybrid".split()
)
# where the pages state rounded numbers only: what transformers' class comes to with the same config
COMPUTED = {
    "c4ai-command-r7b-12-2024": 8_028_033_024,
    "gemma-3n-e2b-text": 4_435_182_688,
    "gemma-4-26b-a4b-text": 25_233_141_790,  # with 30 that transformers keeps as buffers
    "gemma-4-e2b-text": 4_628_569_379,  # with 35 that transformers keeps as buffers
    "hunyuan-7b-reprompt": 7_504_568_320,
    "minimax-m2.5": 228_689_764_864,  # with 15_872 that transformers keeps as buffers
    "powermoe-3b": 3_298_788_864,
}


def spec_of(name: str) -> ModelSpec:
    return spec_from_config(json.loads((CONFIGS / f"{name}.json").read_text()))


def test_every_config_has_its_fact() -> None:
    assert {path.stem for path in CONFIGS.glob("*.json")} == {*PUBLISHED, *COMPUTED}
    assert {spec_of(name).family for name in (*PUBLISHED, *COMPUTED)} >= set(FAMILIES) - WITHOUT


@pytest.mark.parametrize("name", [*PUBLISHED, *COMPUTED])
def test_parameters_are_those_published(name: str) -> None:
    assert spec_of(name).parameters == (PUBLISHED | COMPUTED)[name]


def test_layers_of_real_models() -> None:
    gemma = spec_of("gemma-3-1b-it")
    full = [i for i, layer in enumerate(gemma.layers) if layer.mixer.window is None]
    assert full == [5, 11, 17, 23]
    assert gemma.windows == (512, None)
    assert {layer.mixer.rope.base for layer in gemma.layers if layer.mixer.rope} == {10_000.0, 1_000_000.0}
    assert gemma.tied
    assert gemma.needs_bfloat16_range
    for name in ("smollm2-135m", "llama-3.1-8b", "mistral-7b-v0.3", "qwen2.5-7b", "qwen3-8b"):
        assert spec_of(name).windows == (None,), name
    assert spec_of("qwen3-8b").layers[0].mixer.qk_norm
    assert spec_of("qwen2.5-7b").layers[0].mixer.bias
    assert not spec_of("qwen2.5-7b").layers[0].mixer.out_bias


@pytest.mark.parametrize("variant", variants())
def test_tensor_names_are_unique_and_their_kinds_fit_their_shapes(variant: str) -> None:
    spec = spec_from_config(config_of(variant))
    tensors = list(spec.tensors())
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    for tensor in tensors:
        if tensor.quantizable:
            assert len(tensor.shape) == (3 if tensor.kind == "stack" else 2), tensor.name
        assert (tensor.kind == "bias") <= tensor.name.endswith(".bias")
        assert (tensor.kind == "norm") == ("norm." in tensor.name)
    assert ("head.weight" in {t.name for t in tensors}) == (not spec.tied)


def test_specs_are_values() -> None:
    spec = spec_from_config(config_of("llama"))
    assert spec == spec_from_config(config_of("llama"))
    assert hash(spec) == hash(spec_from_config(config_of("llama")))
    assert replace(spec, tied=True) != spec
    with pytest.raises(FrozenInstanceError):
        spec.dim = 1  # type: ignore[misc]
