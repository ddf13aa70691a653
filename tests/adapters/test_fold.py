"""Folding QA-LoRA: the packed model with other biases computes what the adapted one does; files keep that it folds."""

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from base_models import random_model, wide_spec

from macllm.adapters.files import Adapter, apply, read, write, write_peft
from macllm.adapters.fold import fold, folds
from macllm.adapters.method import Method
from macllm.errors import OptionError
from macllm.nn.adapted import adapters
from macllm.nn.decoder import Decoder
from macllm.nn.stored import Packed
from macllm.tune.methods import attach, detach

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (1, 12)))
METHOD = Method("qalora", 3, 2.0, targets=("q,v,gate,up",))


def learned(model: Decoder, method: Method = METHOD) -> Adapter:
    """An adapter as it may be after training, in the model."""
    attach(model, model.spec, method)
    mx.random.seed(1)
    for _, one in adapters(model):
        one.lora_b = 0.1 * mx.random.normal(one.lora_b.shape)
    return Adapter(method, {name: one.factors for name, one in adapters(model)})


def put(model: Decoder, packed: dict[str, Packed]) -> None:
    """Biases of other packed matrices, into layers that hold several."""
    for module in model.modules():
        if "biases" in module and all(f"{part.name}.weight" in packed for part in module.parts):
            found = [packed[f"{part.name}.weight"].biases for part in module.parts]
            module.biases = mx.concatenate(found, axis=-2)


@pytest.mark.parametrize("variant", ["llama", "qwen3-moe"])
def test_the_folded_model_is_the_adapted_one_and_codes_and_scales_stay(variant: str) -> None:
    model = random_model(wide_spec(variant), "affine")
    before = model(TOKENS)
    adapter = learned(model, replace(METHOD, targets=("q,k,v,gate,up",)))
    expected = model(TOKENS)
    detach(model)
    stored = dict(model.tensors())
    packed = {}
    for name, factors in adapter.factors.items():
        base = stored[f"{name}.weight"]
        packed[f"{name}.weight"] = found = fold(base, factors)
        assert found.weight is base.weight and found.scales is base.scales
        assert not mx.array_equal(found.biases, base.biases)
    put(model, packed)
    assert not np.allclose(before, expected, atol=1e-2)
    assert np.abs(np.array(model(TOKENS)) - np.array(expected)).max() < 2e-5 * np.abs(expected).max()


def test_zero_changes_fold_to_the_same_bits_and_biases_keep_their_type() -> None:
    model = random_model(wide_spec("llama"), "affine")
    attach(model, model.spec, METHOD)
    factors = {name: one.factors for name, one in adapters(model)}
    detach(model)
    stored = dict(model.tensors())
    for name, one in factors.items():
        base = stored[f"{name}.weight"]
        narrow = replace(base, biases=base.biases.astype(mx.bfloat16))
        assert mx.array_equal(fold(base, one).biases, base.biases)
        assert fold(narrow, one).biases.dtype == mx.bfloat16


def test_what_differs_within_a_group_is_refused() -> None:
    model = random_model(wide_spec("llama"), "affine")
    adapter = learned(model, replace(METHOD, kind="lora"))
    detach(model)
    name, factors = next(iter(adapter.factors.items()))
    base = dict(model.tensors())[f"{name}.weight"]
    assert not folds(base, factors)
    with pytest.raises(OptionError, match=r"differs within groups of 64 inputs .*train it with qalora"):
        fold(base, factors)
    assert not folds(dict(random_model(model.spec, "nf4").tensors())[f"{name}.weight"], factors)


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("variant", ["llama", "phi3"])
def test_files_are_plain_loras_that_still_fold(variant: str, peft: bool, tmp_path: Path) -> None:
    model = random_model(wide_spec(variant), "affine")
    adapter = learned(model)
    expected = model(TOKENS)
    (write_peft if peft else write)(tmp_path, model.spec, adapter)
    found = read(tmp_path, model.spec)
    assert found.method.kind == ("lora" if peft else "qalora")
    detach(model)
    stored = dict(model.tensors())
    assert all(folds(stored[f"{name}.weight"], one) for name, one in found.factors.items())
    apply(model, found)
    assert np.allclose(model(TOKENS), expected, atol=1e-4)
    groups = {one.factors.group for _, one in adapters(model)}
    assert groups == ({1} if peft else {64})  # what learns on still folds


@pytest.mark.parametrize("base", ["dense", "nf4"])
@pytest.mark.parametrize("peft", [False, True])
def test_pissa_is_saved_as_a_lora_of_twice_the_rank_for_the_unchanged_base(
    base: str, peft: bool, tmp_path: Path
) -> None:
    model = random_model(wide_spec("llama"), base)
    adapter = learned(model, Method("pissa", 3, 2.0))
    expected = model(TOKENS)
    (write_peft if peft else write)(tmp_path, model.spec, adapter)
    found = read(tmp_path, model.spec)
    assert (found.method.kind, found.method.rank) == ("lora", 6)
    apply(model, found)
    assert np.allclose(model(TOKENS), expected, atol=1e-3)
