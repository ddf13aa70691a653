"""Every processor equals the plain reference, alone and in the chain, on tokens that are not computed yet."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_sampling import LONGEST, dry, frequency, presence, processed, repetition

from macllm.engine import processors
from macllm.engine.processors import DRY_LONGEST, Dry, History, Processors, breaker_tokens
from macllm.engine.request import Sampling
from macllm.errors import OptionError

VOCAB = 12
logit = st.one_of(st.integers(-640, 640).map(lambda n: n / 64), st.just(-np.inf), st.just(0.0))
rows = st.lists(logit, min_size=VOCAB, max_size=VOCAB).map(lambda row: np.array(row, dtype=np.float32))
texts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=90)
repeated = st.tuples(
    st.lists(st.integers(0, 3), min_size=1, max_size=70),
    st.integers(1, 4),
    st.lists(st.integers(0, VOCAB - 1), max_size=5),
).map(lambda part: (part[2] + part[0] * part[1])[:200])
penalties = {"repetition": repetition, "presence": presence, "frequency": frequency}


def as_rows(*tokens):
    return mx.array([list(row) for row in tokens], dtype=mx.int32)


def same(got: mx.array, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.array(got), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", penalties)
@pytest.mark.parametrize("penalty", [0.5, 1.3, -1.0])
@given(row=rows, tokens=texts)
@settings(max_examples=40, deadline=None)
def test_each_penalty_is_the_reference(name, penalty, row, tokens):
    penalty = abs(penalty) if name == "repetition" else penalty
    got = getattr(processors, name)(mx.array(row)[None], as_rows(tokens), penalty)
    same(got[0], penalties[name](row.astype(np.float64), tokens, penalty))


def test_a_token_that_occurs_often_is_penalised_once_by_repetition_and_presence_and_each_time_by_frequency():
    row = mx.array([[4.0, -4.0, 1.0]])
    recent = as_rows([0, 1, 0, 1, 0])
    assert processors.repetition(row, recent, 2.0).tolist() == [[2.0, -8.0, 1.0]]
    assert processors.presence(row, recent, 0.5).tolist() == [[3.5, -4.5, 1.0]]
    assert processors.frequency(row, recent, 0.5).tolist() == [[2.5, -5.0, 1.0]]


@given(
    row=rows,
    tokens=st.one_of(texts, repeated),
    allowed=st.integers(1, 4),
    base=st.sampled_from([1.0, 1.2, 1.75]),
    breakers=st.sets(st.integers(0, VOCAB - 1), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_dry_is_the_reference(row, tokens, allowed, base, breakers):
    mask = mx.array([token in breakers for token in range(VOCAB)])
    got = Dry(0.8, base, allowed, mask)(mx.array(row)[None], as_rows(tokens))
    same(got[0], dry(row.astype(np.float64), tokens, 0.8, base, allowed, breakers), 1e-4)


def test_dry_by_hand():
    logits = mx.zeros((1, 10))
    #        the text ends with 1 2 3, which stood before 4 (after 9) and, only as 2 3, before 5
    text = [9, 1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3]
    penalised = Dry(1.0, 2.0, 2, mx.zeros((10,), dtype=mx.bool_))(logits, as_rows(text))
    assert penalised[0].tolist() == [0, 0, 0, 0, -2.0, -1.0, 0, 0, 0, 0]
    broken = mx.arange(10) == 2  # no sequence reaches across a 2, so none is longer than the 3
    assert not mx.any(Dry(1.0, 2.0, 2, broken)(logits, as_rows(text))).item()


def test_dry_measures_up_to_its_cap_and_stays_finite():
    assert DRY_LONGEST == LONGEST
    block = list(range(100))
    for text, longest in ((block + block, DRY_LONGEST), (block[:40] * 2, 40)):
        got = Dry(1.0, 1.1, 1, mx.zeros((100,), dtype=mx.bool_))(mx.zeros((1, 100)), as_rows(text))
        assert got[0, text[0]].item() == pytest.approx(-(1.1 ** (longest - 1)), rel=1e-4)
    extreme = Dry(100.0, 100.0, 1, mx.zeros((100,), dtype=mx.bool_))(mx.zeros((1, 100)), as_rows(block * 2))
    assert mx.all(mx.isfinite(extreme)).item() and extreme[0, 0].item() < -1e38


@given(
    row=rows,
    prompt=st.one_of(texts, repeated),
    added=st.lists(st.integers(0, VOCAB - 1), max_size=12),
    context=st.sampled_from([0, 1, 5, 64]),
    dry_context=st.sampled_from([0, 7, 40]),
    penalty=st.sampled_from([1.0, 1.2]),
    present=st.sampled_from([0.0, 0.7]),
    frequent=st.sampled_from([0.0, -0.3]),
    multiplier=st.sampled_from([0.0, 0.8]),
    biases=st.dictionaries(st.integers(0, VOCAB - 1), st.sampled_from([-np.inf, -3.0, 100.0]), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_the_chain_is_the_reference_after_every_appended_token(
    row, prompt, added, context, dry_context, penalty, present, frequent, multiplier, biases
):
    chosen = Sampling(
        logit_bias=biases,
        repetition_penalty=penalty,
        repetition_context=context,
        presence_penalty=present,
        frequency_penalty=frequent,
        dry_multiplier=multiplier,
        dry_context=dry_context,
    )
    chain = Processors(chosen, VOCAB, breakers=[3, 7])
    history = chain.start(prompt)
    for count in range(len(added) + 1):
        expected = processed(row, prompt + added[:count], chosen, [3, 7])
        same(chain(mx.array(row)[None], history)[0], expected, 1e-4)
        if count < len(added):
            history = history.append(mx.array([added[count]], dtype=mx.uint32))


@pytest.mark.parametrize("vocab", [1, 49152])
def test_one_token_and_a_large_vocabulary(vocab):
    row = np.random.default_rng(0).normal(0, 4, vocab).astype(np.float32)
    prompt = [int(token) for token in np.random.default_rng(1).integers(0, vocab, 500)] * 2
    chosen = Sampling(
        repetition_penalty=1.1,
        repetition_context=0,
        presence_penalty=0.2,
        frequency_penalty=0.1,
        dry_multiplier=0.5,
        logit_bias={0: 1.0},
    )
    chain = Processors(chosen, vocab)
    got = chain(mx.array(row)[None], chain.start(prompt))[0]
    np.testing.assert_allclose(np.array(got), processed(row, prompt, chosen), rtol=1e-4, atol=1e-2)


def test_half_precision_logits_are_penalised_in_float32():
    row = mx.array([[8.0, 100.0]], dtype=mx.bfloat16)
    chain = Processors(Sampling(presence_penalty=0.001), 2)
    assert chain(row, chain.start([1])).tolist() == [[8.0, pytest.approx(99.999)]]  # bfloat16 has no 99.999


def test_rows_of_a_batch_do_not_touch_each_other():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (3, VOCAB)).astype(np.float32)
    tokens = rng.integers(0, 3, (3, 40)).tolist()
    chosen = Sampling(repetition_penalty=1.3, presence_penalty=1, frequency_penalty=0.2, dry_multiplier=0.8)
    chain = Processors(chosen, VOCAB, [2])
    together = chain(mx.array(logits), History(as_rows(*tokens)))
    for row in range(3):
        same(together[row], processed(logits[row], tokens[row], chosen, [2]), 1e-4)


def test_a_history_is_a_value_so_keeping_the_old_one_rewinds():
    chain = Processors(Sampling(presence_penalty=1.0, repetition_context=2), VOCAB)
    before = chain.start([1, 2, 3])
    after = before.append(mx.array([4])).append(mx.array([5]))
    assert before.tokens.tolist() == [[2, 3]]
    assert after.tokens.tolist() == [[4, 5]]


def test_nothing_is_kept_or_changed_when_nothing_is_on():
    chain = Processors(Sampling(temperature=1.0, top_k=3), VOCAB)
    history = chain.start([1, 2, 3]).append(mx.array([4]))
    logits = mx.zeros((1, VOCAB), dtype=mx.bfloat16)
    assert chain.steps == ()
    assert history.tokens.size == 0
    assert chain(logits, history) is logits


def test_a_history_that_begins_empty():
    chain = Processors(Sampling(repetition_penalty=1.5, frequency_penalty=1.0, dry_multiplier=1.0), 3)
    history = chain.start([])
    logits = mx.array([[1.0, 2.0, 3.0]])
    assert chain(logits, history).tolist() == [[1.0, 2.0, 3.0]]
    assert chain(logits, history.append(mx.array([1]))).tolist() == [[1.0, pytest.approx(1 / 3), 3.0]]


def test_the_newest_token_is_never_forced():
    """A token that cannot be computed would raise as soon as something evaluates it."""

    def trap(token: mx.array) -> mx.array:
        return mx.as_strided(token[::-1], (1,), (1,))  # refused at evaluation: its input is not contiguous

    with pytest.raises(RuntimeError):
        mx.eval(trap(mx.arange(4)))
    chain = Processors(
        Sampling(repetition_penalty=1.1, presence_penalty=1, frequency_penalty=1, dry_multiplier=1), VOCAB
    )
    history = chain.start([1, 2, 3]).append(trap(mx.arange(4)))
    lazy = chain(mx.zeros((1, VOCAB)), history)
    with pytest.raises(RuntimeError):
        mx.eval(lazy)


def test_breakers_are_the_tokens_that_contain_one():
    assert breaker_tokens(["\n", ":"], ["a", "b:\n", "\n\n", "", " :"]) == [1, 2, 4]


TEXT = [1, 2, 3, 1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("changed", "base"),
    [
        ({"logit_bias": {5: 4.0}}, {}),
        ({"repetition_penalty": 1.5}, {}),
        ({"presence_penalty": 1.0}, {}),
        ({"frequency_penalty": 1.0}, {}),
        ({"repetition_context": 1}, {"repetition_penalty": 1.5}),
        ({"repetition_context": 1}, {"presence_penalty": 1.0}),
        ({"repetition_context": 0}, {"frequency_penalty": 1.0, "repetition_context": 4}),
        ({"dry_multiplier": 1.0}, {}),
        ({"dry_base": 3.0}, {"dry_multiplier": 1.0}),
        ({"dry_allowed_length": 1}, {"dry_multiplier": 1.0}),
        ({"dry_context": 4}, {"dry_multiplier": 1.0}),
        ({"dry_context": 4}, {"dry_multiplier": 1.0, "repetition_penalty": 1.1}),
    ],
)
def test_every_option_changes_the_logits(changed, base):
    logits = mx.arange(8).astype(mx.float32)[None] - 2
    one, other = Processors(Sampling(**base), 8), Processors(Sampling(**{**base, **changed}), 8)
    assert one(logits, one.start(TEXT)).tolist() != other(logits, other.start(TEXT)).tolist()


def test_dry_breakers_change_the_logits():
    vocabulary = ["", "a", "b\n", "c", "d", "e", "f", "g"]
    chosen = [Sampling(dry_multiplier=1.0), Sampling(dry_multiplier=1.0, dry_breakers=("x",))]
    logits = mx.zeros((1, 8))
    results = []
    for option in chosen:
        chain = Processors(option, 8, breaker_tokens(option.dry_breakers, vocabulary))
        results.append(chain(logits, chain.start(TEXT)).tolist())
    assert results[0] == [[0.0] * 8]
    assert results[1][0][3] < 0


def test_a_bias_on_a_token_the_model_lacks_is_refused():
    with pytest.raises(OptionError, match=r"token 12 does not exist .*0 to 11"):
        Processors(Sampling(logit_bias={12: 1.0}), VOCAB)
