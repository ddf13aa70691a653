"""Preference objectives: each is its formula, moves every factor, and counts every pair the same."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from answers import base_folder, batch_of, begun, examples, gradients, learn, model_of, spec_of, value

from macllm.errors import InputError, OptionError
from macllm.nn.adapted import adapters
from macllm.tune.objectives.kinds import refuse_rows
from macllm.tune.objectives.preference import Pairs, Preference
from macllm.tune.objectives.registry import objective_of
from macllm.tune.settings import checked

NAMES = ("dpo", "ipo", "simpo", "cpo", "orpo")
RNG = np.random.default_rng(3)
# log-probabilities of whole answers, from likely ones to those that no float32 holds the odds of
TABLE = {
    name: RNG.uniform(-60, -0.1, 40) for name in ("chosen", "rejected", "base_chosen", "base_rejected")
} | {name: RNG.integers(1, 50, 40).astype(float) for name in ("chosen_tokens", "rejected_tokens")}


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def expected(
    name: str, beta: float, smoothing: float, **others: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses and both rewards, float64, as the papers have them."""
    c, r, bc, br = (TABLE[key] for key in ("chosen", "rejected", "base_chosen", "base_rejected"))
    n, m = TABLE["chosen_tokens"], TABLE["rejected_tokens"]

    def smooth(margin: np.ndarray) -> np.ndarray:
        return -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin)

    match name:
        case "dpo":
            return smooth(beta * ((c - r) - (bc - br))), beta * (c - bc), beta * (r - br)
        case "ipo":
            margin = (c - bc) / n - (r - br) / m
            return (margin - 1 / (2 * beta)) ** 2, beta * (c - bc), beta * (r - br)
        case "simpo":
            margin = beta * (c / n - r / m) - others["simpo_gamma"]
            return smooth(margin), beta * c / n, beta * r / m
        case "cpo":
            return smooth(beta * (c - r)) - others["cpo_alpha"] * c / n, beta * c, beta * r
        case "orpo":
            odds = np.log(np.exp(c / n) / (1 - np.exp(c / n))) - np.log(np.exp(r / m) / (1 - np.exp(r / m)))
            return -c / n - beta * log_sigmoid(odds), beta * c / n, beta * r / m
    raise AssertionError(name)


def preference(name: str, **settings: float) -> Preference:
    made = objective_of(checked({"objective": name, **settings}), spec_of(), Path("base"))
    assert isinstance(made, Preference)
    return made


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("dpo", {}),
        ("dpo", {"label_smoothing": 0.2}),
        ("ipo", {}),
        ("simpo", {"simpo_gamma": 0.5}),
        ("simpo", {"simpo_gamma": 1.5, "label_smoothing": 0.3}),
        ("cpo", {"cpo_alpha": 1.0}),
        ("cpo", {"cpo_alpha": 0.0, "label_smoothing": 0.1}),
        ("orpo", {}),
    ],
)
def test_it_is_its_formula(name: str, beta: float, others: dict[str, float]) -> None:
    pairs = Pairs(**{key: mx.array(values.astype(np.float32)) for key, values in TABLE.items()})
    found = preference(name, beta=beta, **others).judge(pairs)
    wanted = expected(name, beta, others.get("label_smoothing", 0.0), **others)
    for ours, theirs in zip((found.losses, found.chosen, found.rejected), wanted, strict=True):
        np.testing.assert_allclose(np.array(ours), theirs, rtol=2e-5, atol=2e-5)


def test_an_answer_that_is_certain_has_a_loss_and_a_gradient() -> None:
    def total(chosen: mx.array) -> mx.array:
        one = mx.ones(2)
        pairs = Pairs(chosen, mx.array([-3.0, -200.0]), one, one, one, one)
        return preference("orpo").judge(pairs).losses.sum()

    loss, gradient = mx.value_and_grad(total)(mx.array([0.0, -1e-9]))
    assert np.isfinite(loss.item()) and np.isfinite(np.array(gradient)).all()


def test_a_beta_that_is_not_given_is_the_objectives_own() -> None:
    pairs = Pairs(**{key: mx.array(values.astype(np.float32)) for key, values in TABLE.items()})
    for name, beta in (("dpo", 0.1), ("simpo", 2.0)):
        theirs = expected(name, beta, 0.0, simpo_gamma=0.5)[0]
        np.testing.assert_allclose(
            np.array(preference(name).judge(pairs).losses), theirs, rtol=2e-5, atol=2e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_factor_learns_and_the_loss_falls(name: str, tmp_path: Path) -> None:
    model, given = model_of(), examples()
    objective = begun(base_folder(tmp_path), model, given, name)
    batch = batch_of(given)
    before = value(model, objective, batch)
    first = learn(model, objective, batch)
    assert all(mx.any(one != 0).item() for path, one in first.items() if path.endswith("lora_b"))
    second = learn(model, objective, batch)
    assert len(second) == 2 * len(list(adapters(model))) > 0
    for path, one in second.items():
        assert mx.all(mx.isfinite(one)).item() and mx.any(one != 0).item(), path
    assert value(model, objective, batch) < before


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_the_batch_change_nothing(name: str, tmp_path: Path) -> None:
    model, given = model_of(), examples()
    objective = begun(base_folder(tmp_path), model, given, name)
    learn(model, objective, batch_of(given))  # away from the base
    whole, wide = batch_of(given), batch_of(given, wider=23)
    parts = [batch_of(given[:2], wider=5), batch_of(given[:6], start=2), batch_of(given, start=6)]
    loss = value(model, objective, whole)
    assert value(model, objective, wide) == pytest.approx(loss, rel=1e-5)
    assert value(model, objective, *parts) == pytest.approx(loss, rel=1e-5)
    expected = gradients(model, objective, whole)
    for found in (gradients(model, objective, wide), gradients(model, objective, *parts)):
        for path, one in expected.items():
            scale = mx.abs(one).max().item()
            assert mx.abs(found[path] - one).max().item() <= 1e-5 * max(1.0, scale), path


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_change_nothing(name: str, tmp_path: Path) -> None:
    model, given = model_of(), examples()
    objective = begun(base_folder(tmp_path), model, given, name)
    learn(model, objective, batch_of(given))
    plain, again = (
        gradients(model, objective, batch_of(given), checkpoint=checkpoint) for checkpoint in (False, True)
    )
    assert all(mx.abs(again[path] - one).max().item() <= 1e-5 for path, one in plain.items())


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_trls(name: str, tmp_path: Path) -> None:
    model, given = model_of(), examples()
    objective = begun(base_folder(tmp_path), model, given, name)
    batch = batch_of(given)
    for _ in range(4):
        learn(model, objective, batch)
    figures = objective.figures(model, batch)
    assert set(figures) == {f"rewards/{one}" for one in ("chosen", "rejected", "accuracies", "margins")}
    assert all(count == len(given) // 2 for _, count in figures.values())
    chosen, rejected, margins = (figures[f"rewards/{one}"][0] for one in ("chosen", "rejected", "margins"))
    assert margins == pytest.approx(chosen - rejected, abs=1e-6) and margins > 0
    assert 0 < figures["rewards/accuracies"][0] <= len(given) // 2


def test_at_the_start_nothing_is_preferred(tmp_path: Path) -> None:
    model, given = model_of(), examples()
    objective = begun(base_folder(tmp_path), model, given, "dpo")
    assert value(model, objective, batch_of(given)) == pytest.approx(np.log(2), abs=1e-5)


def test_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(
        OptionError, match=r"beta=0.5 says nothing to objective 'sft', only to dpo, ipo, kto, "
    ):
        objective_of(checked({"beta": 0.5}), spec_of(), Path("base"))
    with pytest.raises(OptionError, match=r"label_smoothing=0.1 says nothing .* only to dpo, simpo and cpo;"):
        preference("orpo", label_smoothing=0.1)


def test_rows_of_another_kind_are_refused_with_what_to_do() -> None:
    with pytest.raises(
        InputError,
        match=r"'sft' does not learn from 'preference' rows \(expected messages, .*take objective dpo, ipo, ",
    ):
        refuse_rows("sft", "preference")
    with pytest.raises(InputError, match=r"'dpo' does not learn from 'text' rows.*objective sft"):
        refuse_rows("dpo", "text")
    refuse_rows("dpo", "preference")
