"""One optimizer step: any split into micro-batches is one batch, and what is not finite changes nothing."""

import math
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from random_models import random_model

from macllm.nn.decoder import Decoder
from macllm.tune.loss import summed_loss
from macllm.tune.optimizers import Optimizer, OptimizerSpec
from macllm.tune.step import optimizer_step, summed_gradients
from macllm.tune.trained import flat

ROWS, LENGTH = 6, 12
RNG = np.random.default_rng(1)
IDS = RNG.integers(0, 90, (ROWS, LENGTH))
MASK = RNG.random((ROWS, LENGTH)) < np.linspace(0.1, 0.9, ROWS)[:, None]  # rows of very different weight
SPLITS = {"two": [4, 2], "uneven": [1, 5], "each": [1] * 6, "three": [2, 2, 2]}


def model_of(which: str) -> Decoder:
    model = random_model("llama-tied")
    if which == "norms":
        model.freeze()
        for layer in model.layers:
            layer.mixer_norm.unfreeze()
    return model


def loss_of(model: Decoder):
    def loss(batch: tuple[np.ndarray, np.ndarray]) -> tuple[mx.array, int]:
        ids, mask = (mx.array(each) for each in batch)
        return summed_loss(model, model.hidden(ids[:, :-1]), ids[:, 1:], mask[:, 1:])

    return loss


def split(sizes: list[int], pad: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Micro-batches of so many rows, with ``pad`` columns of padding behind."""
    ends = np.cumsum([0, *sizes])
    wider = [np.pad(each, ((0, 0), (0, pad))) for each in (IDS, MASK)]
    return [tuple(each[a:b] for each in wider) for a, b in pairwise(ends)]


@pytest.mark.parametrize("which", ["all", "norms"])
@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_any_accumulation_is_one_batch(which: str, sizes: list[int]) -> None:
    model = model_of(which)
    total, count, whole = summed_gradients(model, split([ROWS]), loss_of(model))
    assert count == MASK[:, 1:].sum()
    for pad in (0, 5):
        again, tokens, parts = summed_gradients(model, split(sizes, pad), loss_of(model))
        assert tokens == count and again == pytest.approx(total, rel=1e-6)
        assert parts.keys() == whole.keys() == flat(model).keys()
        for name, gradient in whole.items():
            assert mx.abs(parts[name] - gradient).max().item() < 1e-5 * max(1, mx.abs(gradient).max().item())


def test_a_step_moves_by_the_mean_over_all_its_tokens() -> None:
    model = model_of("norms")
    before = flat(model)
    total, count, gradients = summed_gradients(model, split([ROWS]), loss_of(model))
    optimizer = Optimizer(OptimizerSpec("sgd", clip=None), before)
    outcome = optimizer_step(model, optimizer, split([1, 5]), loss_of(model), 0.5)
    assert outcome.applied and outcome.supervised == count
    assert outcome.loss == pytest.approx(total / count, rel=1e-6)
    norm = math.sqrt(sum(((one / count) ** 2).sum().item() for one in gradients.values()))
    assert outcome.grad_norm == pytest.approx(norm, rel=1e-4)
    for name, now in flat(model).items():
        expected = before[name] - 0.5 * gradients[name] / count
        assert mx.abs(now - expected).max().item() < 1e-5


def test_clipping_is_of_the_mean_and_the_norm_is_told_before_it() -> None:
    model = model_of("norms")
    before = flat(model)
    optimizer = Optimizer(OptimizerSpec("sgd", clip=1e-3), before)
    outcome = optimizer_step(model, optimizer, split([ROWS]), loss_of(model), 1.0)
    moved = math.sqrt(sum(((one - before[name]) ** 2).sum().item() for name, one in flat(model).items()))
    assert outcome.grad_norm > 1e-2 and moved == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("at", [0, 1])
def test_a_loss_that_is_no_number_changes_nothing(bad: float, at: int) -> None:
    model = model_of("norms")
    optimizer = Optimizer(OptimizerSpec("adamw"), flat(model))
    optimizer_step(model, optimizer, split([ROWS]), loss_of(model), 0.1)
    everything = dict(tree_flatten(model.parameters()))
    state = optimizer.state()
    loss, calls = loss_of(model), []

    def broken(batch: tuple[np.ndarray, np.ndarray]) -> tuple[mx.array, int]:
        calls.append(None)
        summed, count = loss(batch)
        return (summed * bad if len(calls) - 1 == at else summed), count

    outcome = optimizer_step(model, optimizer, split([3, 3]), broken, 0.1)
    assert not outcome.applied and "no finite number" in outcome.why and not math.isfinite(outcome.loss)
    assert all(mx.array_equal(one, everything[name]).item() for name, one in tree_flatten(model.parameters()))
    assert optimizer.steps == 1
    assert all(mx.array_equal(one, state[name]).item() for name, one in optimizer.state().items())
    # and the run can go on
    assert optimizer_step(model, optimizer, split([ROWS]), loss, 0.1).applied


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    model = model_of("norms")
    optimizer = Optimizer(OptimizerSpec("adamw"), flat(model))
    before = flat(model)

    def steep(batch: tuple[np.ndarray, np.ndarray]) -> tuple[mx.array, int]:
        """A finite loss whose slope is infinite: the root at zero."""
        weight = model.layers[0].mixer_norm.weight
        return mx.sqrt(weight - mx.stop_gradient(weight)).sum(), 3

    outcome = optimizer_step(model, optimizer, split([ROWS]), steep, 0.1)
    assert outcome.loss == 0 and not outcome.applied and "gradient" in outcome.why
    assert all(mx.array_equal(one, before[name]).item() for name, one in flat(model).items())


def test_a_step_without_a_supervised_token_changes_nothing() -> None:
    model = model_of("norms")
    optimizer = Optimizer(OptimizerSpec("adamw"), flat(model))
    nothing = [(IDS, np.zeros_like(MASK))]
    outcome = optimizer_step(model, optimizer, nothing, loss_of(model), 0.1)
    assert not outcome.applied and outcome.supervised == 0 and "supervised" in outcome.why
    assert optimizer.steps == 0


def test_a_few_steps_learn_the_batch() -> None:
    model = model_of("all")
    optimizer = Optimizer(OptimizerSpec("adamw"), flat(model))
    losses = [optimizer_step(model, optimizer, split([2, 4]), loss_of(model), 1e-2).loss for _ in range(15)]
    assert losses[-1] < 0.3 * losses[0]
