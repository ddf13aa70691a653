"""Every method on every base and several families: nothing changes at the start, only what is meant to learn does."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from base_models import BASES, random_model, wide_spec
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from macllm import sizes
from macllm.adapters.method import Method
from macllm.errors import OptionError
from macllm.nn.adapted import adapters, seed_dropout
from macllm.nn.decoder import Decoder
from macllm.tune.methods import Attached, attach, detach

FAMILIES = ("llama-biases", "qwen3", "gemma3", "mixtral", "qwen3-moe", "deepseek-v3")
CASES = [
    (variant, base)
    for variant in FAMILIES
    for base in BASES
    if base in ("dense", "affine", "nf4") or variant in ("llama-biases", "qwen3-moe")
]
TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (1, 40)))
LORA = Method(rank=3, scale=2.0)


def values(model: Decoder) -> dict[str, mx.array]:
    """Copies of all that the base is made of."""
    found = {}
    for name, stored in model.tensors():
        for index, array in enumerate(stored.arrays()):
            found[f"{name}.{index}"] = mx.array(array)
    mx.eval(found)
    return found


def loss(model: Decoder) -> mx.array:
    logits = model(TOKENS)[:, :-1].astype(mx.float32)
    return nn.losses.cross_entropy(logits, TOKENS[:, 1:]).mean()


def step(model: Decoder, rate: float = 0.5) -> dict[str, mx.array]:
    """One step of gradient descent; the gradients by name."""
    _, gradients = nn.value_and_grad(model, loss)(model)
    model.update(tree_map(lambda w, g: w - rate * g, model.trainable_parameters(), gradients))
    flat: dict[str, mx.array] = dict(tree_flatten(gradients))
    mx.eval(model.parameters(), flat)
    return flat


@pytest.mark.parametrize(("variant", "base"), CASES)
def test_the_start_is_the_base_and_every_factor_learns(variant: str, base: str) -> None:
    spec = wide_spec(variant)
    model = random_model(spec, base)
    few = TOKENS[:, :5]
    before, before_few, weights = model(TOKENS), model(few), values(model)
    for kind in ("lora", "dora") if base in ("dense", "nf4") else ("lora",):
        attached = attach(model, spec, replace(LORA, kind=kind))
        for mode in (False, True):
            model.train(mode)
            assert mx.array_equal(model(TOKENS), before)
            assert mx.array_equal(model(few), before_few)
        first = step(model)
        assert set(first) == set(attached.names)
        assert all(mx.any(first[name]) for name in first if name.endswith("lora_b"))
        second = step(model)
        idle = [name for name, one in second.items() if not mx.any(one) or not mx.all(mx.isfinite(one))]
        assert idle == []
        assert not mx.array_equal(model(TOKENS), before)
    after = values(model)
    assert all(mx.array_equal(after[name], weights[name]) for name in weights)
    detach(model)
    assert mx.array_equal(model(TOKENS), before)
    assert not tree_flatten(model.trainable_parameters())


@pytest.mark.parametrize("variant", FAMILIES)
def test_parameters_are_as_many_as_arithmetic_says(variant: str) -> None:
    spec = wide_spec(variant)
    model = random_model(spec)
    attached = attach(model, spec, replace(LORA, rank=5))
    assert attached.parameters == sum(sizes.adapter_tensors(spec, 5))
    rows = sum(
        tensor.size // tensor.shape[-1]
        for tensor in spec.tensors()
        if tensor.kind in ("matrix", "stack") and tensor.name.startswith("layers.")
    )
    attached = attach(model, spec, replace(LORA, kind="dora", rank=5))
    assert attached.parameters == sum(sizes.adapter_tensors(spec, 5)) + rows


def test_a_rank_stabilised_scale_shrinks_with_the_root_of_the_rank() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    for rank in (4, 16):
        attach(model, spec, Method("rslora", rank, 8.0))
        assert {adapter.scale for _, adapter in adapters(model)} == {8.0 / rank**0.5}
        attach(model, spec, Method("lora", rank, 8.0))
        assert {adapter.scale for _, adapter in adapters(model)} == {8.0}


def test_the_seed_decides_the_first_factors() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)

    def drawn(seed: int) -> list[mx.array]:
        attach(model, spec, LORA, seed)
        return [adapter.lora_a for _, adapter in adapters(model)]

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert all(mx.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(mx.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({array.flatten()[0].item() for array in first}) == len(first)  # each its own


def test_dropout_changes_what_training_computes_and_nothing_else() -> None:
    spec = wide_spec("qwen3-moe")
    model = random_model(spec)
    attach(model, spec, replace(LORA, dropout=0.5))
    step(model)
    quiet = model(TOKENS)
    model.train()
    assert not mx.array_equal(model(TOKENS), quiet)
    seed_dropout(model, mx.random.key(5))
    assert mx.array_equal(model(TOKENS), model(TOKENS))
    model.eval()
    assert mx.array_equal(model(TOKENS), quiet)


def test_targets_and_layers_bound_what_learns() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attached = attach(model, spec, replace(LORA, targets=("q,v",), num_layers=1))
    assert {name for name, _ in adapters(model)} == {"layers.1.mixer.q", "layers.1.mixer.v"}
    assert attached.first_layer == 1
    assert attach(model, spec, replace(LORA, targets=("head",))).first_layer == len(spec.layers)
    assert attach(model, spec, LORA).first_layer == 0


def test_full_learns_every_weight() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    before = model(TOKENS)
    attached = attach(model, spec, Method("full"))
    assert attached.parameters == spec.parameters
    assert attached.first_layer == -1
    gradients = step(model)
    assert all(mx.any(gradient) for gradient in gradients.values())
    assert not mx.array_equal(model(TOKENS), before)


def test_full_on_the_last_layers_learns_them_and_what_comes_after() -> None:
    spec = wide_spec("qwen3")
    model = random_model(spec)
    attached = attach(model, spec, Method("full", num_layers=1))
    outside = ("embed.", "layers.0.")
    expected = sum(tensor.size for tensor in spec.tensors() if not tensor.name.startswith(outside))
    assert attached.parameters == expected
    assert attached.first_layer == 1


def test_full_refuses_packed_weights_by_name() -> None:
    spec = wide_spec("mixtral")
    model = random_model(spec, "affine")
    with pytest.raises(
        OptionError, match=r"^embed.weight, like \d+ others, is stored as affine 4-bit.*\(lora\)"
    ):
        attach(model, spec, Method("full"))
    assert attach(model, spec, LORA) == Attached(
        tuple(name for name, _ in tree_flatten(model.trainable_parameters())),
        sum(sizes.adapter_tensors(spec, 3)),
        0,
    )
