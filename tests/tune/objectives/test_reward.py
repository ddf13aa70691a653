"""The reward model: Bradley-Terry's formula, a head that learns and is kept, and numbers that are those of training."""

import json
from pathlib import Path

import chatty
import mlx.core as mx
import numpy as np
import pytest
from answers import base_folder, batch_of, begun, examples, gradients, learn, model_of, value

from macllm.adapters.folder import save
from macllm.engine.loading import load_model
from macllm.errors import CheckpointError, InputError
from macllm.nn.adapted import adapters
from macllm.nn.scalar_head import NAME
from macllm.tune import learned
from macllm.tune.dataset import prepare
from macllm.tune.examples import ExampleSettings
from macllm.tune.methods import Method, attach
from macllm.tune.objectives.registry import objective_of
from macllm.tune.objectives.reward import HEAD, rewards
from macllm.tune.reward_model import RewardModel
from macllm.tune.settings import checked
from macllm.tune.trained import flat


def started(tmp_path: Path, variant: str = "qwen3"):
    model, given = model_of(variant), examples()
    return model, given, begun(base_folder(tmp_path), model, given, "reward", seed=4)


def test_it_is_its_formula_of_the_last_tokens_state(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    weight = np.array(model[NAME].weight, np.float64)
    numbers = []
    for example in given:
        states = np.array(model.hidden(mx.array(example.ids[None]))[0], np.float64)
        numbers.append(states[-1] @ weight)
    numbers = np.array(numbers)
    batch = batch_of(given, wider=11)
    np.testing.assert_allclose(np.array(rewards(model, batch)), numbers, rtol=1e-4, atol=1e-5)
    margins = numbers[::2] - numbers[1::2]
    total, count = objective.loss(model, batch)
    assert count == 4 and total.item() == pytest.approx(np.logaddexp(0, -margins).sum(), rel=1e-5)
    figures = objective.figures(model, batch)
    assert figures["rewards/margins"] == (pytest.approx(margins.sum(), rel=1e-4), 4)
    assert figures["rewards/accuracies"][0] == (margins > 0).sum()


def test_head_and_every_factor_learn_and_the_loss_falls(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    batch = batch_of(given)
    before = value(model, objective, batch)
    learn(model, objective, batch)
    second = learn(model, objective, batch)
    assert len(second) == 2 * len(list(adapters(model))) + 1 and f"{NAME}.weight" in second
    assert all(mx.any(one != 0).item() and mx.all(mx.isfinite(one)).item() for one in second.values())
    assert value(model, objective, batch) < before


def test_padding_batches_and_checkpoints_change_nothing(tmp_path: Path) -> None:
    model, given, objective = started(tmp_path)
    learn(model, objective, batch_of(given))
    whole, parts = batch_of(given), [batch_of(given[:4], wider=13), batch_of(given, start=4)]
    assert value(model, objective, *parts) == pytest.approx(value(model, objective, whole), rel=1e-5)
    expected = gradients(model, objective, whole)
    for found in (gradients(model, objective, *parts), gradients(model, objective, whole, checkpoint=True)):
        assert all(mx.abs(found[path] - one).max().item() <= 1e-5 for path, one in expected.items())


def test_the_seed_draws_the_head(tmp_path: Path) -> None:
    first, again = (started(tmp_path)[0] for _ in range(2))
    assert mx.array_equal(first[NAME].weight, again[NAME].weight).item()
    begun(base_folder(tmp_path), first, examples(), "reward", seed=5)
    assert not mx.array_equal(first[NAME].weight, again[NAME].weight).item()


ROWS = [
    {
        "prompt": [{"role": "user", "content": f"{n}?"}],
        "chosen": [{"role": "assistant", "content": "ab" * (n % 3 + 1)}],
        "rejected": [{"role": "assistant", "content": "ba"}],
    }
    for n in range(6)
]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_was_learned_scores_conversations_as_in_training(tmp_path: Path, kind: str) -> None:
    base, folder = chatty.folder("endless"), tmp_path / "out"
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    loaded = load_model(base, dtype="float32")
    model, settings = loaded.model, checked({"objective": "reward", "max_seq_length": 64})
    data = prepare(path, loaded.require_tokenizer(), ExampleSettings(64, "turns", "2026-01-31"))
    objective = objective_of(settings, model.spec, base)
    method = Method(kind, rank=2, scale=4.0)
    attach(model, model.spec, method, seed=1)
    objective.equip(model)
    batch = batch_of(data.train)
    for _ in range(3):
        learn(model, objective, batch, far=0.1)
    learned.write(folder, model, method, settings)
    objective.save(model, folder)
    places = [int(one.place.split(":")[1]) - 1 for one in data.train[::2]]
    given = [[*ROWS[n]["prompt"], *ROWS[n][key]] for n in places for key in ("chosen", "rejected")]
    scorer = RewardModel.load(base, folder, dtype="float32")
    found = scorer.score(given)
    np.testing.assert_allclose(found, np.array(rewards(model, batch)), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"conversations\[0\]: it does not end with an answer"):
        scorer.score([given[0][:1]])
    with pytest.raises(InputError, match=r"conversations\[1\]: it is longer than the 64 tokens"):
        scorer.score([given[0], [given[0][0], {"role": "assistant", "content": "ab" * 100}]])


def test_a_head_that_is_not_there_or_of_another_base_is_refused(tmp_path: Path) -> None:
    base, folder = chatty.folder("endless"), tmp_path / "out"
    save(folder, "adapters.safetensors", {"a": mx.zeros(1)}, {"lora_parameters": {}}, {})
    with pytest.raises(CheckpointError, match=r"there is no reward_head.safetensors"):
        RewardModel.load(base, folder)
    mx.save_safetensors(str(folder / HEAD), {"score.weight": mx.zeros((1, 3))})
    with pytest.raises(CheckpointError, match=r"score.weight has shape \(1, 3\) where this model asks for"):
        RewardModel.load(base, folder)


def test_a_model_without_its_head_is_the_base(tmp_path: Path) -> None:
    model, _, _ = started(tmp_path)
    assert f"{NAME}.weight" in flat(model)
    assert all(NAME not in name for name, _ in model.tensors())
