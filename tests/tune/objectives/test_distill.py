"""Distillation: divergences are their formulas a chunk at a time, a teacher is asked once, and of the same tokens."""

import json
from pathlib import Path
from typing import Any

import chatty
import mlx.core as mx
import numpy as np
import pytest
from answers import batch_of, examples, learn
from answers import gradients as slopes_of
from answers import value as mean_of
from random_models import random_model

from macllm.adapters.method import Method
from macllm.errors import OptionError
from macllm.nn.adapted import adapters
from macllm.nn.decoder import Decoder
from macllm.tune import loss as of_loss
from macllm.tune.examples import Example
from macllm.tune.loss import row_losses
from macllm.tune.methods import attach
from macllm.tune.objectives import teacher as of_teacher
from macllm.tune.objectives.distill import Distill
from macllm.tune.objectives.divergence import (
    FromTeacher,
    Measure,
    coarser,
    likeliest,
    log_probs,
)
from macllm.tune.objectives.registry import objective_of
from macllm.tune.settings import DIVERGENCES, checked
from macllm.weights.model_files import open_model

VOCAB = 97
RNG = np.random.default_rng(0)


def student() -> Decoder:
    """Of 300 tokens, as chatty's models."""
    model = random_model("qwen3", vocab_size=300)
    attach(model, model.spec, Method(rank=3, scale=4.0), seed=1)
    model.eval()
    return model


def distill(**settings: Any) -> Distill:
    base, teacher = chatty.folder("endless"), str(chatty.folder("other"))
    given = {
        "objective": "distill",
        "teacher": teacher,
        "batch_size": 2,
        "max_completion_length": 6,
        **settings,
    }
    made = objective_of(checked(given), open_model(base).spec, base)
    assert isinstance(made, Distill)
    return made


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def formula(kind: str, teacher: np.ndarray, student: np.ndarray, mixing: float) -> np.ndarray:
    """Of shares (n, K), float64."""

    def kl(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (one * np.log(one / other)).sum(-1)

    if kind == "js":
        mixture = mixing * teacher + (1 - mixing) * student
        return mixing * kl(teacher, mixture) + (1 - mixing) * kl(student, mixture)
    return kl(teacher, student) if kind == "forward" else kl(student, teacher)


# -- formulas ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [4, 512])
@pytest.mark.parametrize(("temperature", "mixing"), [(1.0, 0.5), (2.0, 0.1)])
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_in_chunks_it_is_numpys_formula_with_its_gradient(
    kind: Any, temperature: float, mixing: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_loss, "CHUNK", chunk)
    model, other = random_model("llama"), random_model("llama-tied", seed=3, hidden_size=36)
    model.freeze()
    measure = Measure(kind, temperature, mixing)
    own, told = (
        mx.array(RNG.normal(size=(17, model.spec.dim)), mx.float32),
        mx.array(RNG.normal(size=(17, 36)), mx.float32),
    )
    theirs = softmax(np.array(other.logits(told), np.float64)[:, :VOCAB] / temperature)
    mine = softmax(np.array(model.logits(own), np.float64)[:, :VOCAB] / temperature)
    expected = formula(kind, theirs, mine, mixing) * temperature**2
    rule = FromTeacher(measure, other, VOCAB)
    np.testing.assert_allclose(row_losses(model, own, (told,), rule), expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(
        row_losses(model, own, (told,), rule, learns=False), expected, rtol=2e-4, atol=1e-6
    )

    def plain(x: mx.array) -> mx.array:
        return measure.of(
            log_probs(other.logits(told)[:, :VOCAB], temperature),
            log_probs(model.logits(x)[:, :VOCAB], temperature),
        ).sum()

    found = mx.grad(lambda x: row_losses(model, x, (told,), rule).sum())(own)
    np.testing.assert_allclose(found, mx.grad(plain)(own), atol=1e-5)
    assert mx.abs(found).max().item() > 1e-3


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_the_same_distribution_is_no_distance(kind: Any) -> None:
    own = log_probs(mx.array(RNG.normal(size=(9, 20)), mx.float32), 1.0)
    assert mx.abs(Measure(kind).of(own, own)).max().item() < 1e-6


def test_js_goes_from_forward_to_reverse() -> None:
    one, other = (log_probs(mx.array(RNG.normal(size=(9, 20)), mx.float32), 1.0) for _ in range(2))
    for kind, mixing in (("forward", 1e-3), ("reverse", 1 - 1e-3)):
        share = min(mixing, 1 - mixing)
        np.testing.assert_allclose(
            Measure("js", 1.0, mixing).of(one, other) / share, Measure(kind).of(one, other), rtol=0.02
        )


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_the_likeliest_and_the_rest_are_a_coarser_distribution(kind: Any) -> None:
    theirs, own = (log_probs(mx.array(2 * RNG.normal(size=(9, 30)), mx.float32), 1.0) for _ in range(2))
    whole, before = Measure(kind).of(theirs, own), mx.zeros(9)
    for count in (1, 5, 29):
        ids, kept = likeliest(theirs, count)
        shares = np.exp(np.array(theirs, np.float64))
        order = np.sort(np.argsort(-shares, axis=1)[:, :count], axis=1)
        assert np.array_equal(ids, order)
        chosen = np.take_along_axis(shares, order, 1)
        np.testing.assert_allclose(
            np.exp(kept), np.concatenate([chosen, 1 - chosen.sum(1, keepdims=True)], 1), atol=1e-5
        )
        found = Measure(kind).of(kept, coarser(own, ids))
        assert mx.all(found <= whole + 1e-5).item() and mx.all(found >= 0).item()
        assert count == 1 or mx.all(found >= before - 1e-5).item()
        before = found
    np.testing.assert_allclose(before, whole, atol=1e-5)  # one token alone is the rest


# -- the objective -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"divergence": "reverse"}, {"divergence": "js", "teacher_top_k": 8}]
)
def test_every_factor_learns_and_the_student_comes_nearer(settings: dict[str, Any]) -> None:
    model, given, made = student(), examples(), distill(**settings)
    list(made.begin(model, given))
    batch = batch_of(given)
    before = mean_of(model, made, batch)
    learn(model, made, batch)
    second = learn(model, made, batch)
    assert len(second) == 2 * len(list(adapters(model)))
    assert all(mx.any(one != 0).item() and mx.all(mx.isfinite(one)).item() for one in second.values())
    assert mean_of(model, made, batch) < before


@pytest.mark.parametrize("settings", [{"divergence": "js"}, {"teacher_top_k": 8}])
def test_padding_batches_and_checkpoints_change_nothing(settings: dict[str, Any]) -> None:
    model, given, made = student(), examples(), distill(**settings)
    list(made.begin(model, given))
    learn(model, made, batch_of(given))
    whole, wide = batch_of(given), batch_of(given, wider=23)
    parts = [batch_of(given[:2], wider=5), batch_of(given, start=2)]
    loss, expected = mean_of(model, made, whole), slopes_of(model, made, whole)
    assert mean_of(model, made, wide) == pytest.approx(loss, rel=1e-5) == mean_of(model, made, *parts)
    for found in (
        slopes_of(model, made, wide),
        slopes_of(model, made, *parts),
        slopes_of(model, made, whole, checkpoint=True),
    ):
        assert all(mx.abs(found[path] - one).max().item() < 1e-5 for path, one in expected.items())


def test_the_loss_is_the_divergence_of_both_models() -> None:
    model, given, made = student(), examples(), distill()
    list(made.begin(model, given))
    batch, teacher = batch_of(given), made._teacher.model()
    shares = [softmax(np.array(one(mx.array(batch.ids[:, :-1])), np.float64)) for one in (teacher, model)]
    rows = formula("forward", *shares, 0.5)
    mask = batch.learned[:, 1:]
    assert mean_of(model, made, batch) == pytest.approx((rows * mask).sum() / mask.sum(), rel=1e-4)


def test_what_is_kept_is_computed_once_and_needs_no_teacher(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    model, given, loads = student(), examples(), list[Path]()
    before = of_teacher.load_model
    monkeypatch.setattr(of_teacher, "load_model", lambda path: loads.append(path) or before(path))
    made = distill(teacher_top_k=8)
    list(made.begin(model, given))
    first = mean_of(model, made, batch_of(given))
    again = distill(teacher_top_k=8)
    list(again.begin(model, given[::-1]))
    assert (
        mean_of(model, again, batch_of(given)) == first and len(loads) == 1 and made._teacher._model is None
    )
    list(distill(teacher_top_k=4).begin(model, given))
    assert len(loads) == 2
    (file, _) = sorted((cache.parent / "teacher").iterdir(), key=lambda path: -path.stat().st_size)
    file.write_bytes(file.read_bytes()[:200])
    damaged = distill(teacher_top_k=8)
    list(damaged.begin(model, given))
    assert mean_of(model, damaged, batch_of(given)) == first and len(loads) == 3


def test_on_policy_it_learns_on_its_own_answers() -> None:
    model, given, made = student(), examples(), distill(on_policy=0.5)
    batch = batch_of(given)
    list(made.begin(model, given))
    drawn = [made.ready(model, batch, step) for step in range(12)]
    own = [one for one in drawn if one is not batch]
    assert 2 < len(own) < 10
    for one in own:
        for row, example in enumerate(given):
            assert np.array_equal(one.ids[row, : example.prompt], example.ids[: example.prompt])
            assert one.learned[row].argmax() == example.prompt and 1 <= one.learned[row].sum() <= 6
    assert len({one.ids.tobytes() for one in own}) == len(own)
    again = [made.ready(model, batch, step) for step in range(12)]
    assert all(np.array_equal(one.ids, other.ids) for one, other in zip(drawn, again, strict=True))
    assert made.ready(model, batch, None) is batch  # looks are at given answers
    total, count = made.loss(model, own[0])
    assert count == own[0].supervised and total.item() > 0


def test_prompts_alone_need_the_students_own_answers() -> None:
    ids = np.array([5, 6, 7], np.int32)
    prompt = Example(ids, np.zeros(3, bool), "a.jsonl:1", raw=json.dumps({"prompt": "a"}))
    assert "set on_policy=1" in str(distill().refuses(prompt))
    made, model = distill(on_policy=1), student()
    assert made.refuses(prompt) is None
    for step in (0, None):
        ready = made.ready(model, batch_of([prompt]), step)
        assert (
            ready.ids[0, :3].tolist() == [5, 6, 7]
            and ready.learned[0, 3:].any()
            and not ready.learned[0, :3].any()
        )


def test_another_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in chatty.folder("endless").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    table = json.loads((other / "tokenizer.json").read_text())
    vocab = table["model"]["vocab"]
    vocab["!"], vocab["Z"] = vocab["Z"], vocab["!"]
    (other / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(
        OptionError, match=r"other' has another vocabulary: its token \d+ is 'Z', .* learns '!'"
    ):
        distill(teacher=str(other))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"on_policy": 0.5, "teacher_top_k": 8}, "leave one of them out"),
        ({"teacher_top_k": 300}, "is not below the 300 tokens"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        distill(**settings)


def test_a_teacher_has_to_be_named() -> None:
    with pytest.raises(OptionError, match="teacher is not set"):
        objective_of(
            checked({"objective": "distill"}),
            open_model(chatty.folder("endless")).spec,
            chatty.folder("endless"),
        )
