"""The loss that keeps experts equally busy, and the logits that it is of, against transformers."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from tiny import decoder, difference, reference, tokens

from macllm.nn.balancing import balancing_loss, router_logits
from macllm.nn.moe import MoEBlock

LOGITS = [np.random.default_rng(seed).normal(0, 2, size=(3, 10, 8)).astype(np.float32) for seed in range(3)]
IDS = [tokens(12), tokens(12, seed=1)]


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("top_k", [1, 2, 8])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_transformers_loss(layers: int, top_k: int, padded: bool) -> None:
    import torch
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    mask = np.arange(10) >= np.array([0, 3, 7])[:, None] if padded else None
    gates = tuple(torch.tensor(each.reshape(-1, 8)) for each in LOGITS[:layers])
    expected = load_balancing_loss_func(gates, 8, top_k, torch.tensor(mask) if mask is not None else None)
    found = balancing_loss(
        [mx.array(each) for each in LOGITS[:layers]], top_k, mx.array(mask) if mask is not None else None
    )
    assert found.item() == pytest.approx(float(expected), rel=1e-6)


def test_equally_busy_experts_cost_least() -> None:
    even = mx.array(np.eye(8, dtype=np.float32)[None] * 0.01)
    assert balancing_loss([even], 1).item() == pytest.approx(1.0, rel=1e-4)
    assert balancing_loss([mx.zeros((1, 40, 8)) + 9 * mx.eye(8)[0]], 1).item() > 7.9


@pytest.mark.parametrize("variant", ["mixtral", "qwen3-moe-some-layers", "phimoe", "gpt-oss"])
def test_every_routers_logits_are_those_of_the_original(variant: str) -> None:
    import torch

    original = reference(variant)
    with torch.no_grad():
        expected = original.model(torch.tensor(IDS), output_router_logits=True).router_logits
    model = decoder(original.folder)
    with router_logits(model) as found:
        model(mx.array(IDS))
    assert len(found) == len(expected) == sum(isinstance(layer.channel, MoEBlock) for layer in model.layers)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape[:2] == (2, 12)
        assert difference(ours.reshape(theirs.shape), theirs.numpy()) < 1e-5


def test_nothing_is_kept_once_it_is_closed() -> None:
    model = decoder(reference("mixtral").folder)
    with pytest.raises(RuntimeError, match="stop"), router_logits(model) as found:
        model(mx.array(IDS))
        raise RuntimeError("stop")
    model(mx.array(IDS))
    assert len(found) == 3


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed-anew"])
def test_routers_learn_from_it_as_in_the_original(again: bool) -> None:
    """Through all layers below, also where a layer is computed anew in the backward pass."""
    import torch

    original = reference("mixtral").model
    original.zero_grad()
    original(torch.tensor(IDS), output_router_logits=True).aux_loss.backward()
    gradients = [layer.mlp.gate.weight.grad.numpy() for layer in original.model.layers]
    below = original.model.layers[0].self_attn.v_proj.weight.grad.numpy()
    original.zero_grad()
    model = decoder(reference("mixtral").folder)

    def loss(model: nn.Module) -> mx.array:
        x, gathered = model.embed(mx.array(IDS)), []
        for layer in model.layers:
            x, logits = _layer(layer, x, again)
            gathered += logits
        return balancing_loss(gathered, 2)

    value, found = nn.value_and_grad(model, loss)(model)
    assert value.item() > 0
    flat = dict(tree_flatten(found))
    for index, expected in enumerate(gradients):
        assert difference(flat[f"layers.{index}.channel.router.weight"], expected) < 1e-4
    assert difference(flat["layers.0.mixer.qkv.weight"][-len(below) :], below) < 1e-4


def _layer(layer: nn.Module, x: mx.array, again: bool) -> tuple[mx.array, list[mx.array]]:
    from macllm.nn.step import Step

    def run(parameters: dict, x: mx.array) -> tuple[mx.array, list[mx.array]]:
        layer.update(parameters)
        with router_logits(layer) as logits:
            return layer(x, Step(x.shape[1]), ()), logits

    return (mx.checkpoint(run) if again else run)(layer.trainable_parameters(), x)
