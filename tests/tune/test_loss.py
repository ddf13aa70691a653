"""The loss in chunks is the loss of all logits, with its gradients, in a fraction of the memory."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten
from random_models import random_model

from macllm.nn.decoder import Decoder
from macllm.tune import loss as of_loss
from macllm.tune.loss import summed_loss, supervised, token_losses

MODELS = {
    "head": ("llama", {}),
    "tied": ("llama-tied", {}),
    "capped": ("gemma2", {}),
    "scaled": ("cohere", {}),
    "packed": ("llama", {"packed": ("head.weight",), "wide": True}),
    "packed-tied": ("llama-tied", {"packed": ("embed.weight",), "wide": True}),
}
BATCH, LENGTH = 3, 21
RNG = np.random.default_rng(0)


def model_of(name: str) -> Decoder:
    variant, changes = MODELS[name]
    return random_model(variant, **changes)


def data(model: Decoder) -> tuple[mx.array, mx.array, mx.array]:
    """States (B, L, D), targets and a mask (B, L)."""
    states = RNG.normal(size=(BATCH, LENGTH, model.spec.dim)).astype(np.float32)
    targets = RNG.integers(0, model.spec.vocab, (BATCH, LENGTH)).astype(np.int32)
    return mx.array(states), mx.array(targets), mx.array(RNG.random((BATCH, LENGTH)) < 0.6)


def plain(model: Decoder, states: mx.array, targets: mx.array, mask: mx.array) -> mx.array:
    """The definition, over all logits."""
    logits = model.logits(states)
    losses = mx.logsumexp(logits, axis=-1) - mx.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return (losses * mask).sum()


def far(found: mx.array, expected: mx.array) -> float:
    """The largest difference, of the largest value."""
    return float((mx.abs(found - expected).max() / (mx.abs(expected).max() + 1e-6)).item())


def gradients(model: Decoder, function, states: mx.array) -> tuple[mx.array, mx.array, dict[str, mx.array]]:
    """Value, gradient by the states, and by the trainable parameters."""
    before = model.trainable_parameters()

    def of(parameters, states: mx.array) -> mx.array:
        model.update(parameters)
        return function(states)

    value, (by_weights, by_states) = mx.value_and_grad(of, argnums=(0, 1))(before, states)
    model.update(before)
    return value, by_states, dict(tree_flatten(by_weights))


def freeze_all_but_the_head(model: Decoder) -> None:
    model.freeze()
    head: Module = model.embed if model.head is None else model.head
    head.unfreeze()
    if "head_bias" in model:
        model.unfreeze(keys=["head_bias"], recurse=False)


@pytest.fixture(params=["quick powers", "plain exponentials"])
def exponentials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_loss, "slow_exponential", lambda: request.param == "quick powers")


@pytest.mark.usefixtures("exponentials")
@pytest.mark.parametrize("chunk", [4, 512])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_loss_of_all_logits_and_its_gradient(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_loss, "CHUNK", chunk)
    model = model_of(name)
    model.freeze()
    states, targets, mask = data(model)
    expected, by_states, _ = gradients(model, lambda x: plain(model, x, targets, mask), states)
    found, own, _ = gradients(model, lambda x: summed_loss(model, x, targets, mask)[0], states)
    assert found.dtype == mx.float32 and far(found, expected) < 1e-6
    assert far(own, by_states) < 1e-5
    alone, count = summed_loss(model, states, targets, mask, learns=False)
    assert far(alone, expected) < 1e-6 and count == int(mask.sum().item())


@pytest.mark.usefixtures("exponentials")
@pytest.mark.parametrize("chunk", [4, 512])
@pytest.mark.parametrize("name", ["head", "tied", "capped", "scaled"])
def test_a_trainable_head_has_its_gradient_too(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_loss, "CHUNK", chunk)
    model = model_of(name)
    freeze_all_but_the_head(model)
    states, targets, mask = data(model)
    expected, by_states, by_weights = gradients(model, lambda x: plain(model, x, targets, mask), states)
    found, own, of_head = gradients(model, lambda x: summed_loss(model, x, targets, mask)[0], states)
    assert far(found, expected) < 1e-6 and far(own, by_states) < 1e-5
    assert by_weights.keys() == of_head.keys() and by_weights
    assert all(far(of_head[name], by_weights[name]) < 1e-5 for name in by_weights)
    assert all(mx.abs(one).max().item() > 0 for one in of_head.values())


def test_each_token_may_have_a_weight_of_its_own() -> None:
    """What comes from above need not be the same for all: preference losses weigh sequences."""
    for trainable in (False, True):
        model = model_of("tied")
        model.freeze()
        if trainable:
            model.embed.unfreeze()
        states, ids = mx.random.normal((17, model.spec.dim)), mx.arange(17)
        weights = mx.linspace(-1, 2, 17)

        def of_all(x: mx.array, model=model, ids=ids, weights=weights) -> mx.array:
            logits = model.logits(x)
            losses = mx.logsumexp(logits, axis=-1) - mx.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
            return (losses * weights).sum()

        def in_chunks(x: mx.array, model=model, ids=ids, weights=weights) -> mx.array:
            return (token_losses(model, x, ids) * weights).sum()

        expected, found = gradients(model, of_all, states), gradients(model, in_chunks, states)
        assert far(found[1], expected[1]) < 1e-5
        assert all(far(found[2][name], one) < 1e-5 for name, one in expected[2].items())


@pytest.mark.usefixtures("exponentials")
@pytest.mark.parametrize("trainable", [False, True])
def test_a_temperature_divides_the_logits(trainable: bool) -> None:
    model = model_of("tied")
    model.freeze()
    if trainable:
        model.embed.unfreeze()
    states, ids = mx.random.normal((17, model.spec.dim)), mx.arange(17)

    def of_all(x: mx.array) -> mx.array:
        logits = model.logits(x) / 0.6
        return (mx.logsumexp(logits, axis=-1) - mx.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]).sum()

    expected = gradients(model, of_all, states)
    found = gradients(model, lambda x: token_losses(model, x, ids, temperature=0.6).sum(), states)
    assert far(found[0], expected[0]) < 1e-5 * expected[0].item() and far(found[1], expected[1]) < 1e-5
    assert all(far(found[2][name], one) < 1e-5 for name, one in expected[2].items())
    alone = token_losses(model, states, ids, temperature=0.6, learns=False).sum()
    assert far(alone, expected[0]) < 1e-5 * expected[0].item()


def test_it_is_numpys_formula() -> None:
    model = model_of("head")
    states, targets, mask = data(model)
    weight = np.array(model.head.weight, np.float64)
    logits = np.array(states, np.float64) @ weight.T  # (B, L, V)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(shares, np.array(targets)[..., None], -1)[..., 0]
    expected = -(np.log(chosen) * np.array(mask)).sum()
    found, _ = summed_loss(model, states, targets, mask)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    model.freeze()
    _, own, _ = gradients(model, lambda x: summed_loss(model, x, targets, mask)[0], states)
    slopes = (shares - np.eye(model.spec.vocab)[np.array(targets)]) * np.array(mask)[..., None]
    assert np.abs(np.array(own) - slopes @ weight).max() < 1e-5


def test_tokens_that_are_not_supervised_have_no_gradient_and_no_influence() -> None:
    model = model_of("capped")
    model.freeze()
    states, targets, mask = data(model)
    value, own, _ = gradients(model, lambda x: summed_loss(model, x, targets, mask)[0], states)
    assert not mx.any(mx.where(mask[..., None], 0.0, own)).item()
    # garbage where nothing is learned, ids out of range included
    other = mx.where(mask[..., None], states, 1e6)
    ids = mx.where(mask, targets, -100)
    again, same, _ = gradients(model, lambda x: summed_loss(model, x, ids, mask)[0], other)
    assert again.item() == value.item() and mx.array_equal(own, same)


def test_nothing_to_learn_is_a_loss_of_zero() -> None:
    model = model_of("head")
    states, targets, mask = data(model)
    value, count = summed_loss(model, states, targets, mx.zeros_like(mask))
    assert value.item() == 0 and count == 0
    assert supervised(targets, mask).count == int(mask.sum().item())


def test_half_precision_is_summed_in_float32() -> None:
    model = model_of("head")
    model.update({"head": {"weight": model.head.weight.astype(mx.bfloat16)}})
    model.freeze()
    states, targets, mask = data(model)
    states = states.astype(mx.bfloat16)
    found, own, _ = gradients(model, lambda x: summed_loss(model, x, targets, mask)[0], states)
    expected = plain_in_float32(model, states, targets, mask)
    assert found.dtype == mx.float32 and own.dtype == mx.bfloat16
    assert found.item() == pytest.approx(expected, rel=2e-3)


def plain_in_float32(model: Decoder, states: mx.array, targets: mx.array, mask: mx.array) -> float:
    logits = model.logits(states).astype(mx.float32)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return float(((mx.logsumexp(logits, axis=-1) - chosen) * mask).sum().item())


@pytest.mark.parametrize("trainable", [False, True])
def test_memory_is_that_of_a_chunk(trainable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All logits of 768 tokens would be 25 MB, several times over in the backward pass."""
    vocab, tokens, chunk = 8_000, 768, 16
    monkeypatch.setattr(of_loss, "CHUNK", chunk)
    model = random_model("llama-tied", vocab_size=vocab)
    model.freeze()
    if trainable:
        model.embed.unfreeze()
    states = mx.random.normal((1, tokens, model.spec.dim))
    targets, mask = mx.arange(tokens)[None], mx.ones((1, tokens), mx.bool_)
    mx.eval(states, targets, mask, model.parameters())
    peaks = []
    for function in (summed_loss, lambda *given: (plain(*given), 0)):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        found = gradients(model, lambda x, function=function: function(model, x, targets, mask)[0], states)
        mx.eval(found)
        peaks.append(mx.get_peak_memory() - before)
        del found
    all_logits = vocab * tokens * 4
    weights = vocab * model.spec.dim * 4 if trainable else 0
    assert peaks[0] < all_logits / 2 + 4 * weights
    assert peaks[0] < peaks[1] / 4
