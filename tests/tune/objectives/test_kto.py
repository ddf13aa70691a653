"""KTO: its formula, a reference point of the whole step, and labels of rows."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from answers import base_folder, batch_of, begun, examples, gradients, learn, model_of, value

from macllm.errors import InputError
from macllm.tune.examples import Example
from macllm.tune.objectives.kinds import refuse_rows
from macllm.tune.objectives.kto import KTO, Anchored, Weights, kto_losses, mismatched

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("point", [0.0, 1.7])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.33, 0.5)])
def test_it_is_its_formula(beta: float, point: float, weights: tuple[float, float]) -> None:
    gained, wanted = RNG.uniform(-20, 20, 30), RNG.random(30) < 0.5
    found = kto_losses(beta, Weights(*weights), mx.array(gained), mx.array(wanted), point)
    sigmoid = 1 / (1 + np.exp(-beta * (gained - point)))
    expected = np.where(wanted, weights[0] * (1 - sigmoid), weights[1] * sigmoid)
    np.testing.assert_allclose(np.array(found), expected, rtol=2e-5, atol=1e-6)


def started(tmp_path: Path, **settings: float):
    model, given = model_of(), examples()
    objective = begun(base_folder(tmp_path), model, given, "kto", **settings)
    assert isinstance(objective, KTO)
    return model, given, objective


def test_every_factor_learns_and_the_loss_falls(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    batch = batch_of(given)
    assert value(model, objective, batch) == pytest.approx(0.5, abs=1e-5)
    learn(model, objective, batch)
    second = learn(model, objective, batch)
    assert all(mx.any(one != 0).item() and mx.all(mx.isfinite(one)).item() for one in second.values())
    assert value(model, objective, batch) < 0.5


def test_padding_and_micro_batches_change_nothing(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    for _ in range(3):
        learn(model, objective, batch_of(given))
    whole, wide = batch_of(given), batch_of(given, wider=19)
    parts = [batch_of(given[:1], wider=4), batch_of(given[:6], start=1), batch_of(given, start=6)]
    (ready,) = objective.ready_step(model, [whole], 0)
    assert isinstance(ready, Anchored) and ready.point > 0.01  # or nothing would be tried here
    loss = value(model, objective, whole)
    assert value(model, objective, wide) == pytest.approx(loss, rel=1e-5)
    assert value(model, objective, *parts) == pytest.approx(loss, rel=1e-5)
    expected, found = gradients(model, objective, whole), gradients(model, objective, *parts)
    assert all(mx.abs(found[path] - one).max().item() <= 1e-5 for path, one in expected.items())


def test_the_point_is_what_is_gained_on_answers_to_other_prompts(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    base = model_of()
    for _ in range(3):
        learn(model, objective, batch_of(given))

    def log_prob(of, example: Example) -> float:
        logits = np.array(of(mx.array(example.ids[None, :-1]))[0], np.float64)
        logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        at = np.flatnonzero(example.learned)
        return float(logs[at - 1, example.ids[at]].sum())

    # of the next prompt's: chosen gets chosen, rejected rejected
    others = [mismatched(given[i], given[(i + 2) % len(given)], 2048) for i in range(len(given))]
    expected = np.mean([log_prob(model, one) - log_prob(base, one) for one in others])
    (ready,) = objective.ready_step(model, [batch_of(given)], 0)
    assert isinstance(ready, Anchored) and ready.point == pytest.approx(max(0, expected), rel=1e-4)


def test_figures_are_of_each_label(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    for _ in range(3):
        learn(model, objective, batch_of(given))
    batch = objective.ready(model, batch_of(given[:5]), 0)
    figures = objective.figures(model, batch)
    assert figures["rewards/chosen"][1] == 3 and figures["rewards/rejected"][1] == 2
    assert figures["rewards/chosen"][0] / 3 > figures["rewards/rejected"][0] / 2
    assert figures["kl"][1] == 5


def test_weights_change_the_loss(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    loss = value(model, objective, batch_of(given))
    heavier = begun(base_folder(tmp_path), model_of(), given, "kto", desirable_weight=3.0)
    assert value(model, heavier, batch_of(given)) == pytest.approx(2 * loss, rel=1e-5)
    lighter = begun(base_folder(tmp_path), model_of(), given, "kto", undesirable_weight=0.5)
    assert value(model, lighter, batch_of(given)) == pytest.approx(0.75 * loss, rel=1e-5)


def test_rows_of_one_label_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"label of all rows to learn from is true.*add rows with label false"
    ):
        refuse_rows("kto", "labelled", {True})
    refuse_rows("kto", "labelled", {True, False})
    refuse_rows("kto", "preference", {True, False})


def test_another_answer_is_cut_to_what_there_is_room_for() -> None:
    one, other = examples()[0], examples()[3]
    found = mismatched(one, other, 9)
    assert found.ids.tolist() == [*one.ids[:6].tolist(), *other.ids[8:11].tolist()]
    assert found.learned.tolist() == [False] * 6 + [True] * 3
