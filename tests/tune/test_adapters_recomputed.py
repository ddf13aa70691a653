"""Adapters in the training pass: computed anew or compiled, with the same dropout in both passes."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from base_models import random_model, wide_spec
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from macllm.adapters.method import Method
from macllm.nn.adapted import seed_dropout
from macllm.nn.decoder import Decoder
from macllm.tune.forward import hidden
from macllm.tune.methods import attach

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (2, 12)))
METHOD = Method(rank=3, scale=2.0, dropout=0.3)


def moved(variant: str, kind: str, base: str) -> Decoder:
    """A model whose adapters are no longer at their start."""
    spec = wide_spec(variant)
    model = random_model(spec, base)
    attach(model, spec, replace(METHOD, kind=kind, num_layers=1))
    mx.random.seed(3)
    model.update(tree_map(lambda one: one + 0.1 * mx.random.normal(one.shape), model.trainable_parameters()))
    model.train()
    return model


def gradients(model: Decoder, *, checkpoint: bool) -> dict[str, mx.array]:
    def loss(model: Decoder) -> mx.array:
        return (hidden(model, TOKENS, checkpoint=checkpoint) ** 3).mean()

    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


@pytest.mark.parametrize(
    ("variant", "kind", "base"),
    [
        ("llama", "lora", "nf4"),
        ("llama", "dora", "dense"),
        ("qwen3-moe", "lora", "nf4"),
        ("qwen3-moe", "dora", "dense"),
        ("deepseek-v3", "lora", "dense"),
    ],
)
def test_a_pass_computed_twice_drops_the_same(variant: str, kind: str, base: str) -> None:
    model = moved(variant, kind, base)
    seed_dropout(model, mx.random.key(1))
    once, twice = gradients(model, checkpoint=False), gradients(model, checkpoint=True)
    assert all(mx.any(one) for one in once.values())
    assert all(np.allclose(once[name], twice[name], rtol=1e-4, atol=1e-6) for name in once)
    seed_dropout(model, mx.random.key(2))
    other = gradients(model, checkpoint=True)
    assert not any(mx.array_equal(once[name], other[name]) for name in once)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_compiled_pass_takes_key_and_factors_as_they_are_given(kind: str) -> None:
    model = moved("llama", kind, "affine")

    def loss(parameters: object, key: mx.array) -> mx.array:
        model.update(parameters)
        seed_dropout(model, key)
        return (hidden(model, TOKENS) ** 3).mean()

    start = model.trainable_parameters()
    later = tree_map(lambda one: one * 1.1, start)
    compiled = mx.compile(loss)
    for parameters in (start, later):
        for seed in (1, 2):
            key = mx.random.key(seed)
            assert np.allclose(compiled(parameters, key), loss(parameters, key), rtol=1e-4)
    assert not np.allclose(compiled(start, mx.random.key(1)), compiled(later, mx.random.key(1)), rtol=1e-4)
    assert not np.allclose(compiled(start, mx.random.key(1)), compiled(start, mx.random.key(2)), rtol=1e-4)
