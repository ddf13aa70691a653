"""Completions drawn in one batch are the model's own: as likely as it finds them alone, whatever stands beside them."""

import mlx.core as mx
import numpy as np
import pytest
from random_models import random_model

from macllm.adapters.method import AnyMethod, Bottleneck, Method, Scalings, Virtual
from macllm.nn.decoder import Decoder
from macllm.tune.forward import hidden
from macllm.tune.methods import attach
from macllm.tune.rollout import Completion, roll_out
from macllm.tune.trained import flat, put

# full attention, windows, states, rotations by length, a mixture, ALiBi, latents
FAMILIES = (
    "llama",
    "gemma2",
    "mamba",
    "phi3-longrope-short",
    "qwen3-moe",
    "mpt",
    "deepseek-v3",
    "qwen3-next",
)
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(0, 90, length).astype(np.int32) for length in (1, 3, 9, 17)]


def drawn(
    model: Decoder, seed: int = 0, limit: int = 12, stops: frozenset[int] = frozenset(), **others: float
):
    return roll_out(model, PROMPTS, stops, limit, seed=seed, **others)


def log_probs(model: Decoder, prompt: np.ndarray, completion: Completion, temperature: float) -> np.ndarray:
    ids = np.concatenate([prompt, completion.ids])
    logits = model.logits(hidden(model, mx.array(ids[None, :-1]))).astype(mx.float32) / temperature
    found = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    own = mx.take_along_axis(found, mx.array(ids[None, 1:, None]), axis=-1)[0, :, 0]
    return np.array(own)[len(prompt) - 1 :]


@pytest.mark.parametrize("variant", FAMILIES)
def test_they_are_as_likely_as_the_training_pass_finds_them_alone(variant: str) -> None:
    model = random_model(variant)
    for prompt, completion in zip(PROMPTS, drawn(model, temperature=0.7), strict=True):
        assert len(completion) == len(completion.log_probs) == 12 and not completion.ended
        expected = log_probs(model, prompt, completion, 0.7)
        np.testing.assert_allclose(completion.log_probs, expected, atol=2e-3)


@pytest.mark.parametrize(
    "method", [Virtual("prompt", 3), Virtual("prefix", 3), Bottleneck(4), Scalings(), Method()]
)
def test_what_learns_beside_a_model_has_its_part_in_them(method: AnyMethod) -> None:
    model = random_model("qwen3")
    before = drawn(model)
    attach(model, model.spec, method, seed=1)
    model.eval()
    keys = mx.random.split(mx.random.key(0), len(flat(model)))
    moved = zip(keys, flat(model).items(), strict=True)
    put(model, {path: one + 0.3 * mx.random.normal(one.shape, key=key) for key, (path, one) in moved})
    found = drawn(model)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        np.testing.assert_allclose(completion.log_probs, log_probs(model, prompt, completion, 1.0), atol=2e-3)
    assert any(not np.array_equal(one.ids, other.ids) for one, other in zip(found, before, strict=True))


def test_the_seed_decides() -> None:
    model = random_model("llama")
    first, again, other = (np.stack([one.ids for one in drawn(model, seed)]) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    mx.random.seed(5)
    assert np.array_equal(first, np.stack([one.ids for one in drawn(model, 1)]))
    same = roll_out(model, [PROMPTS[0]] * 6, frozenset(), 12, seed=1)
    assert len({one.ids.tobytes() for one in same}) == 6


def test_a_row_ends_with_its_first_token_to_stop_at() -> None:
    model = random_model("llama")
    free = drawn(model, limit=40)
    stops = frozenset(int(one.ids[at]) for one, at in zip(free[:3], (3, 20, 0), strict=True))
    found = drawn(model, limit=40, stops=stops)
    for one, whole in zip(found, free, strict=True):
        ends = [index for index, token in enumerate(whole.ids) if token in stops]
        assert np.array_equal(one.ids, whole.ids[: ends[0] + 1] if ends else whole.ids)
        assert one.ended == bool(ends) and len(one.log_probs) == len(one)
    assert sum(one.ended for one in found) >= 3


def test_it_ends_when_all_rows_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = random_model("llama"), list[int]()
    before = Decoder.hidden
    monkeypatch.setattr(
        Decoder, "hidden", lambda *given, **named: passes.append(1) or before(*given, **named)
    )
    found = drawn(model, limit=500, stops=frozenset(range(model.spec.vocab)))
    assert [len(one) for one in found] == [1] * 4 and len(passes) < 20


def test_temperature_makes_the_likely_likelier() -> None:
    model = random_model("llama")
    cold, warm = (np.mean([one.log_probs.mean() for one in drawn(model, temperature=t)]) for t in (0.05, 2.0))
    assert cold > -0.5 > warm
