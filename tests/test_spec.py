"""The spec against facts: real models' published parameter counts, and what follows from the layers."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from tiny import config_of, variants

from macllm.families import spec_from_config
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
}


def spec_of(name: str) -> ModelSpec:
    return spec_from_config(json.loads((CONFIGS / f"{name}.json").read_text()))


def test_every_config_has_its_fact() -> None:
    assert {path.stem for path in CONFIGS.glob("*.json")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    assert spec_of(name).parameters == PUBLISHED[name]


def test_layers_of_real_models() -> None:
    gemma = spec_of("gemma-3-1b-it")
    full = [i for i, layer in enumerate(gemma.layers) if layer.mixer.window is None]
    assert full == [5, 11, 17, 23]
    assert gemma.windows == (512, None)
    assert {layer.mixer.rope.base for layer in gemma.layers if layer.mixer.rope} == {10_000.0, 1_000_000.0}
    assert gemma.tied
    assert gemma.needs_bfloat16_range
    for name in set(PUBLISHED) - {"gemma-3-1b-it"}:
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
