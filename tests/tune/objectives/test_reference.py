"""What the base says of answers: computed once, by the base alone, and found again by content."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from answers import base_folder, batch_of, begun, examples, learn, model_of

from macllm.nn.decoder import Decoder
from macllm.tune.batches import Batching
from macllm.tune.objectives import reference
from macllm.tune.objectives.reference import Reference

BATCHING = Batching(2, 64)


class Counting:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches = 0
        asked = reference.answer_log_probs

        def counted(*arguments: object, **named: object) -> object:
            self.batches += 1
            return asked(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(reference, "answer_log_probs", counted)


def told(base: Path, model: Decoder, given: list) -> np.ndarray:
    found = Reference(base, BATCHING)
    list(found.begin(model, given))
    return found.of(batch_of(given))


def log_probs(model: Decoder, given: list) -> np.ndarray:
    """One example after the other, from all logits in float64."""
    found = []
    for example in given:
        logits = np.array(model(mx.array(example.ids[None, :-1]))[0], np.float64)
        logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        at = np.flatnonzero(example.learned)
        found.append(logs[at - 1, example.ids[at]].sum())
    return np.array(found)


def test_it_is_the_sum_over_the_answers_tokens(tmp_path: Path) -> None:
    model, given = model_of(), examples()
    found = told(base_folder(tmp_path), model, given)
    np.testing.assert_allclose(found, log_probs(model, given), rtol=1e-5)


def test_it_stays_the_bases_whatever_the_model_learns(tmp_path: Path) -> None:
    model, given = model_of(), examples()
    base = base_folder(tmp_path)
    before = told(base, model, given)
    objective = begun(base, model, given, "dpo")
    for _ in range(3):
        learn(model, objective, batch_of(given))
    again = Reference(base, BATCHING)
    list(again.begin(model, given))  # from the disk
    np.testing.assert_array_equal(again.of(batch_of(given)), before)


def test_it_is_computed_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given, counting = model_of(), examples(), Counting(monkeypatch)
    base = base_folder(tmp_path)
    first = told(base, model, given)
    assert counting.batches == 4 and len(list(cache.iterdir())) == 1
    # neither padding nor order matter
    found = Reference(base, BATCHING)
    list(found.begin(model, given[::-1]))
    np.testing.assert_array_equal(found.of(batch_of(given, wider=7)), first)
    list(found.begin(model, given[:4]))
    assert counting.batches == 4
    list(found.begin(model, [*given, *examples(seed=9)]))  # the new ones alone
    assert counting.batches == 8


def test_another_base_or_content_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, counting = examples(), Counting(monkeypatch)
    base = base_folder(tmp_path)
    first = told(base, model_of(), given)
    (base / "model.safetensors").write_bytes(b"other weights")
    other = told(base, model_of(seed=5), given)
    assert counting.batches == 8 and not np.allclose(first, other)
    told(base, model_of(seed=5), examples(seed=1))
    assert counting.batches == 12


def test_a_damaged_file_is_made_anew(tmp_path: Path, cache: Path) -> None:
    model, given, base = model_of(), examples(), base_folder(tmp_path)
    first = told(base, model, given)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(told(base, model, given), first)


def test_it_tells_how_far_it_is_and_keeps_nothing_half(tmp_path: Path, cache: Path) -> None:
    model, given = model_of(), examples()
    found = Reference(base_folder(tmp_path), BATCHING)
    assert next(found.begin(model, given)) == (2, 8)  # and no further
    assert not cache.exists()
    assert list(found.begin(model, given)) == [(2, 8), (4, 8), (6, 8), (8, 8)]
    assert list(found.begin(model, given)) == []
