"""Fully fine-tuned weights: mlx-lm loads what is written, it comes back to the bit, another base is refused."""

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from base_models import random_model, settled, wide_spec
from mlx.utils import tree_map
from tiny import decoder, native, reference

from macllm.adapters.files import Adapter, write
from macllm.adapters.full import apply_full, write_full
from macllm.adapters.method import Method
from macllm.errors import CheckpointError, ConfigError
from macllm.nn.decoder import Decoder
from macllm.tune.methods import attach

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (1, 8)))


def learned(variant: str, num_layers: int = -1) -> Decoder:
    """A model whose weights are no longer what they were."""
    model = decoder(reference(variant).folder)
    attach(model, model.spec, Method("full", num_layers=num_layers))
    mx.random.seed(0)
    model.update(tree_map(lambda one: one + 0.05 * mx.random.normal(one.shape), model.trainable_parameters()))
    return model


@pytest.mark.parametrize(
    ("variant", "num_layers"), [("llama", -1), ("llama", 1), ("gemma2", -1), ("qwen3-moe", 2), ("phi3", -1)]
)
def test_mlx_lm_loads_what_is_written_and_it_comes_back(
    variant: str, num_layers: int, tmp_path: Path
) -> None:
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    model = learned(variant, num_layers)
    expected = model(TOKENS)
    assert not np.allclose(expected, native(variant)(TOKENS), atol=1e-2)
    write_full(tmp_path, model, num_layers)
    again = decoder(reference(variant).folder)
    apply_full(again, tmp_path)
    assert np.allclose(again(TOKENS), expected, atol=1e-5)
    theirs = load_adapters(
        load_model(reference(variant).folder, model_config=settled(variant))[0], str(tmp_path)
    )
    assert np.allclose(theirs(TOKENS), expected, atol=2e-3 if variant == "gemma2" else 1e-4)


def test_weights_of_another_base_are_refused(tmp_path: Path) -> None:
    write_full(tmp_path, learned("llama"), -1)
    with pytest.raises(CheckpointError, match=r"has shape \(.*\) where this model asks for .*another base"):
        apply_full(random_model(replace(native("llama").spec, vocab=77)), tmp_path)
    with pytest.raises(CheckpointError, match=r"does not have; the weights belong to another base"):
        spec = native("llama").spec
        apply_full(random_model(replace(spec, layers=spec.layers[:2])), tmp_path)


def test_an_adapter_is_not_taken_for_weights(tmp_path: Path) -> None:
    from macllm.nn.adapted import Factors

    model = native("llama")
    factors = {"layers.0.mixer.q": Factors(mx.zeros((48, 2)), mx.zeros((2, 48)), 1.0)}
    write(tmp_path, model.spec, Adapter(Method(rank=2, scale=1.0), factors))
    with pytest.raises(ConfigError, match=r"fine_tune_type='lora' is an adapter \(expected 'full'\)"):
        apply_full(model, tmp_path)


def test_packed_weights_are_refused(tmp_path: Path) -> None:
    spec = wide_spec("llama")
    plain = random_model(spec)
    write_full(tmp_path, plain, -1)
    with pytest.raises(CheckpointError, match=r"has no plain tensors .*16-bit model"):
        apply_full(random_model(spec, "affine"), tmp_path)
