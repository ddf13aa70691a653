"""The distribution equals the plain reference for every truncation and chain; draws follow it; seeds repeat."""

import itertools
import math

import mlx.core as mx
import numpy as np
import pytest
import reference_sampling as plain
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from macllm.engine.request import Sampling
from macllm.engine.sampler import Sampler, nucleus_floor, top_logprobs

TINY = 1e-4  # relative; nearer to an edge than this, float32 and float64 may decide differently

# a coarse grid, exact in bfloat16 too, so that ties are common and as exact as in a model's logits
grid = st.integers(-40, 40).map(lambda n: n / 8)
rows = st.lists(st.one_of(grid, grid, grid, st.just(-np.inf)), min_size=1, max_size=40).filter(
    lambda row: max(row) > -np.inf
)
temperatures = st.sampled_from([1e-3, 0.3, 0.7, 1.0, 1.7, 10.0])
top_ks = st.sampled_from([0, 1, 2, 5, 39, 40, 1000])
top_ps = st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.97, 1.0])
min_ps = st.sampled_from([0.0, 0.03, 0.2, 0.7, 1.0])


def changes(chosen: Sampling) -> str:
    """What a test's settings change, as its name."""
    default = Sampling()
    return ",".join(f"{k}={v}" for k, v in vars(chosen).items() if v != getattr(default, k))


def check(row, chosen: Sampling, keep=(), dtype=mx.float32) -> None:
    logits = mx.array(row, dtype=mx.float32).astype(dtype)
    exact = np.array(logits.astype(mx.float32))
    if chosen.temperature > 0:
        assume(plain.margin(exact, chosen) > TINY)
    got = np.array(Sampler(chosen, keep).distribution(logits))
    expected = plain.distribution(exact, chosen, keep)
    np.testing.assert_allclose(np.exp(got), expected, atol=2e-5)
    possible = expected > 1e-30  # what float64 itself lost is no evidence
    assert np.all(np.isfinite(got[possible]))
    assert np.all(got[expected == 0] < -600)  # -inf, or lost to float64


@given(row=rows, k=top_ks, temperature=temperatures)
@settings(max_examples=60, deadline=None)
def test_top_k_alone(row, k, temperature):
    check(row, Sampling(temperature=temperature, top_k=k))


@given(row=rows, p=top_ps, temperature=temperatures)
@settings(max_examples=100, deadline=None)
def test_top_p_alone(row, p, temperature):
    check(row, Sampling(temperature=temperature, top_p=p))


@given(row=rows, ratio=min_ps, temperature=temperatures)
@settings(max_examples=60, deadline=None)
def test_min_p_alone(row, ratio, temperature):
    check(row, Sampling(temperature=temperature, min_p=ratio))


@given(
    row=rows,
    probability=st.sampled_from([0.3, 1.0]),
    threshold=st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5]),
    keep=st.lists(st.integers(0, 0), max_size=1),
    temperature=temperatures,
)
@settings(max_examples=100, deadline=None)
def test_xtc_alone(row, probability, threshold, keep, temperature):
    assume(threshold > 0 or temperature > 0.1)  # at no threshold what float64 lost would be the least likely
    chosen = Sampling(temperature=temperature, xtc_probability=probability, xtc_threshold=threshold)
    check(row, chosen, keep)


@given(
    row=rows,
    dtype=st.sampled_from([mx.float32, mx.bfloat16, mx.float16]),
    temperature=temperatures,
    k=top_ks,
    p=top_ps,
    ratio=min_ps,
    probability=st.sampled_from([0.0, 0.4, 1.0]),
    keep=st.lists(st.integers(0, 0), max_size=1),
)
@settings(max_examples=300, deadline=None)
def test_the_whole_chain(row, dtype, temperature, k, p, ratio, probability, keep):
    chosen = Sampling(temperature, top_k=k, top_p=p, min_p=ratio, xtc_probability=probability)
    check(row, chosen, keep, dtype)


@pytest.mark.parametrize("vocab", [5003, 49152])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize(
    "chosen",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=1.0, top_k=50),
        Sampling(temperature=1.0, top_p=0.9),
        Sampling(temperature=2.0, top_p=0.99),
        Sampling(temperature=10.0, top_p=0.6),
        Sampling(temperature=0.8, top_k=100, top_p=0.85, min_p=0.02),
        Sampling(temperature=0.5, top_k=10, top_p=0.95, xtc_probability=0.5, xtc_threshold=0.05),
    ],
    ids=changes,
)
def test_large_vocabularies(vocab, dtype, chosen):
    row = mx.array(np.random.default_rng(vocab).normal(0, 2, vocab), dtype=mx.float32).astype(dtype)
    logits = np.array(row.astype(mx.float32)).astype(np.float64)
    got = np.exp(np.array(Sampler(chosen).distribution(row[None])[0]).astype(np.float64))
    out = plain.top_k(plain.softmax(logits / chosen.temperature), logits, chosen.top_k)
    order = np.argsort(
        -logits, kind="stable"
    )  # the reference's top_p is quadratic in the levels: in order here
    levels, first = np.unique(-logits[order], return_index=True)
    above = np.concatenate([[0.0], np.cumsum(out[order])])[first]
    edge = -levels[above < chosen.top_p][-1]
    if chosen.top_p < 1.0:
        out = plain.only(out, np.flatnonzero((logits >= edge) & (out > 0)))
    out = plain.min_p(out, chosen.min_p)
    out = (1 - chosen.xtc_probability) * out + chosen.xtc_probability * plain.xtc(
        out, chosen.xtc_threshold, ()
    )
    strangers = (got > 0) != (out > 0)  # at the edge of the nucleus summation order may move one level
    assert out[strangers].sum() + got[strangers].sum() < 1e-4
    np.testing.assert_allclose(got, out, atol=2e-5)


@given(row=rows, share=st.floats(0.01, 0.99), repeat=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_halving_finds_what_sorting_finds(row, share, repeat):
    values = mx.array([row * repeat], dtype=mx.float32) - max(row)
    target = share * mx.exp(values).sum(axis=-1, keepdims=True)
    sorted_whole = nucleus_floor(values, target, values.shape[-1])
    weights = np.exp(np.array(values[0], dtype=np.float64))
    sums = [weights[weights >= w].sum() / weights.sum() for w in set(weights)]
    assume(min(abs(total - share) for total in sums) > TINY)
    for block in (1, 2, 7):
        assert nucleus_floor(values, target, block).item() == sorted_whole.item()


def test_what_reaches_the_share_exactly_is_enough():
    values, target = mx.array([[0.0, -1.0, 0.0, -2.0]]), mx.array([[2.0]])
    assert [nucleus_floor(values, target, block).item() for block in (1, 4)] == [0.0, 0.0]


def test_ties_at_the_edge_stay_together():
    row = mx.array([1.0, 3.0, 1.0, 1.0, 0.0])
    for chosen in (Sampling(temperature=1.0, top_k=2), Sampling(temperature=1.0, top_p=0.8)):
        assert mx.isfinite(Sampler(chosen).distribution(row)).tolist() == [True, True, True, True, False]


def test_greedy_takes_the_first_of_the_most_likely():
    row = mx.array([[1.0, 3.0, 3.0, 2.0]])
    sampler = Sampler(Sampling(top_k=4, xtc_probability=1.0))
    assert sampler(row).tolist() == [1]
    assert sampler.distribution(row).tolist() == [[-math.inf, 0.0, -math.inf, -math.inf]]


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-3, 1.0, 100.0])
def test_one_possible_token_is_always_chosen(temperature):
    chosen = Sampling(temperature, top_k=3, top_p=0.5, min_p=1.0, xtc_probability=1.0, xtc_threshold=0.0)
    assert Sampler(chosen)(mx.array([[7.0]])).tolist() == [0]
    assert Sampler(chosen)(mx.array([[-math.inf, -50000.0, -math.inf]])).tolist() == [1]


def test_xtc_leaves_a_step_alone_where_it_would_drop_a_kept_token():
    row = mx.log(mx.array([0.4, 0.35, 0.2, 0.05]))
    chosen = Sampling(temperature=1.0, xtc_probability=1.0, xtc_threshold=0.1)

    def remaining(keep):
        return mx.isfinite(Sampler(chosen, keep).distribution(row)).tolist()

    assert remaining([]) == [False, False, True, True]
    assert remaining([2, 3]) == [False, False, True, True]  # neither would be dropped
    assert remaining([1]) == [True] * 4


def test_xtc_needs_two_likely_tokens():
    row = mx.log(mx.array([0.9, 0.06, 0.04]))
    chosen = Sampling(temperature=1.0, xtc_probability=1.0, xtc_threshold=0.1)
    np.testing.assert_allclose(
        np.exp(np.array(Sampler(chosen).distribution(row))), [0.9, 0.06, 0.04], atol=1e-6
    )


@pytest.mark.parametrize(
    "chosen",
    [
        Sampling(temperature=1.0, seed=1),
        Sampling(temperature=1.5, top_k=6, top_p=0.9, seed=2),
        Sampling(temperature=1.0, min_p=0.05, xtc_probability=0.5, seed=3),
    ],
    ids=changes,
)
def test_draws_follow_the_distribution(chosen):
    row = np.array([2.0, 1.5, 1.0, 1.0, 0.5, 0.0, -1.0, -np.inf, -4.0], dtype=np.float32)
    draws = 4000
    sampler = Sampler(chosen)
    ids = mx.concatenate([sampler(mx.array(row)[None]) for _ in range(draws)])
    counts = np.bincount(np.array(ids), minlength=len(row))
    expected = plain.distribution(row, chosen) * draws
    assert counts[expected == 0].sum() == 0
    seen = expected > 0
    statistic = ((counts[seen] - expected[seen]) ** 2 / expected[seen]).sum()
    assert statistic < 24.3  # chi-square, 7 degrees of freedom, p = 0.001; the seed is fixed


def draw(sampler: Sampler, logits: mx.array, steps: int) -> list[int]:
    return [int(sampler(logits).item()) for _ in range(steps)]


def test_the_same_seed_draws_the_same_whatever_else_happens():
    logits = mx.zeros((1, 1000))
    chosen = Sampling(temperature=1.0, seed=11)
    alone = draw(Sampler(chosen), logits, 20)

    busy, other = Sampler(chosen), Sampler(Sampling(temperature=1.0, seed=12))
    mixed = []
    for _ in range(20):  # another generation and the global random state between any two steps
        other(logits)
        mx.random.seed(3)
        mx.eval(mx.random.uniform(shape=(5,)))
        mixed.append(int(busy(logits).item()))
    assert mixed == alone

    late = Sampler(chosen)  # all dispatched before any is read
    lazy = [late(logits) for _ in range(20)]
    mx.eval(*reversed(lazy))
    assert [int(token.item()) for token in lazy] == alone

    late.step = 5
    assert draw(late, logits, 15) == alone[5:]


def test_different_seeds_and_steps_draw_differently():
    logits = mx.zeros((1, 50000))
    runs = [
        draw(Sampler(Sampling(temperature=1.0, seed=seed)), logits, 8) for seed in (0, 1, 2, 2**32, 2**64 - 1)
    ]
    drawn = list(itertools.chain(*runs))
    assert len(set(drawn)) > len(drawn) - 3


def test_without_a_seed_each_sampler_draws_and_reports_its_own():
    logits = mx.zeros((1, 50000))
    one, two = (Sampler(Sampling(temperature=1.0)) for _ in range(2))
    ids = draw(one, logits, 5)
    assert one.seed != two.seed
    assert ids != draw(two, logits, 5)
    assert ids == draw(Sampler(Sampling(temperature=1.0, seed=one.seed)), logits, 5)


def test_rows_of_a_batch_have_draws_and_truncations_of_their_own():
    logits = mx.array([[5.0, 1.0, 0.0], [0.0, 1.0, 5.0]])
    sampler = Sampler(Sampling(temperature=1.0, top_k=2, top_p=0.99, min_p=0.001, seed=0))
    both = sampler.distribution(logits)
    for row in range(2):
        np.testing.assert_allclose(
            np.array(both[row]), np.array(sampler.distribution(logits[row])), atol=1e-6
        )
    flat = Sampler(Sampling(temperature=1.0, seed=0))(mx.zeros((4, 50000)))
    assert flat.shape == (4,)
    assert len(set(flat.tolist())) == 4


SPREAD = mx.log(mx.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04]))


@pytest.mark.parametrize(
    ("changed", "base"),
    [
        ({"temperature": 0.5}, {}),
        ({"temperature": 0.0}, {}),
        ({"top_k": 3}, {}),
        ({"top_p": 0.7}, {}),
        ({"min_p": 0.3}, {}),
        ({"xtc_probability": 0.5}, {}),
        ({"xtc_threshold": 0.2}, {"xtc_probability": 0.5}),
    ],
)
def test_every_option_changes_the_distribution(changed, base):
    one = Sampler(Sampling(**{"temperature": 1.0, **base})).distribution(SPREAD)
    other = Sampler(Sampling(**{"temperature": 1.0, **base, **changed})).distribution(SPREAD)
    assert not np.allclose(np.exp(np.array(one)), np.exp(np.array(other)), atol=1e-3)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize(("vocab", "count"), [(1, 5), (6, 0), (6, 3), (49152, 20)])
def test_top_logprobs_are_the_models_own_best_first(vocab, count, dtype):
    rng = np.random.default_rng(vocab)
    logits = mx.array(rng.normal(0, 3, (2, vocab)).astype(np.float32)).astype(dtype)
    token = mx.array([vocab - 1, 0])
    chosen, ids, values = top_logprobs(logits, token, count)
    exact = np.array(logits.astype(mx.float32)).astype(np.float64)
    for row in range(2):
        expected = np.log(plain.softmax(exact[row]))
        assert chosen[row].item() == pytest.approx(expected[token[row].item()], abs=1e-4)
        np.testing.assert_allclose(np.array(values[row]), np.sort(expected)[::-1][:count], atol=1e-4)
        np.testing.assert_allclose(expected[np.array(ids[row])], np.array(values[row]), atol=1e-4)
        assert len(set(ids[row].tolist())) == min(count, vocab)


def test_equal_logprobs_come_in_the_order_of_their_ids():
    chosen, ids, values = top_logprobs(mx.array([[1.0, 2.0, 0.0, 2.0, 2.0]]), mx.array([3]), 3)
    assert ids.tolist() == [[1, 3, 4]]
    assert values[0].tolist() == [chosen.item()] * 3
