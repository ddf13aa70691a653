"""Whether a model fits: the verdict follows the bytes, and the longest context is the longest."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm import fit, sizes
from macllm.families import spec_from_config
from macllm.fit import COMFORTABLE_SHARE, CONTEXT_AT_LOAD, LEAST_CONTEXT, fit_of_sizes, fit_of_spec

CONFIGS = Path(__file__).parent / "configs"
NAMES = ["qwen3-8b", "gemma-3-1b-it", "mistral-7b-v0.3", "smollm2-135m"]


def spec(name="qwen3-8b"):
    return spec_from_config(json.loads((CONFIGS / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", NAMES)
@given(limit=st.integers(10**7, 10**11))
def test_the_verdict_follows_the_bytes(name, limit):
    model = spec(name)
    weights = fit.bytes_by_precision(model)["4"]
    found = fit_of_spec(model, weights, limit)
    at_load = sizes.working_bytes(model, weights, min(CONTEXT_AT_LOAD, model.max_context))
    assert (found.verdict == "too big") == (at_load > limit), "as the engine decides at load"
    assert (found.verdict == "comfortable") == (found.needed_bytes <= COMFORTABLE_SHARE * limit)
    assert found.needed_bytes == sizes.working_bytes(model, weights, min(8192, model.max_context))


@pytest.mark.parametrize("name", NAMES)
@given(limit=st.integers(10**7, 10**11), value_bytes=st.sampled_from([2, 4]))
def test_the_longest_context_is_the_longest(name, limit, value_bytes):
    model = spec(name)
    weights = fit.bytes_by_precision(model)["8"]
    found = fit_of_spec(model, weights, limit, value_bytes=value_bytes)
    longest = found.longest_context
    if found.verdict == "too big":
        assert longest == 0
        return
    assert LEAST_CONTEXT <= longest <= model.max_context
    assert sizes.working_bytes(model, weights, longest, value_bytes) <= limit
    if longest < model.max_context:
        assert sizes.working_bytes(model, weights, longest + 1, value_bytes) > limit


@given(st.integers(10**6, 10**12), st.integers(10**7, 10**12))
def test_sizes_alone_are_judged_and_said_to_be(weights, limit):
    found = fit_of_sizes(weights, limit)
    assert found.needed_bytes > weights and "judged by its size alone" in found.sentence
    assert (found.verdict == "too big") == (found.needed_bytes > limit)


def test_sizes_with_the_cache_of_a_config_give_a_context():
    config = json.loads((CONFIGS / "qwen3-8b.json").read_text())
    kv = fit.plain_kv_bytes(config)
    assert kv(1000) == sizes.kv_bytes(spec(), 1000)
    found = fit_of_sizes(5 * 10**9, 8 * 10**9, kv_bytes=kv, max_context=fit.stated_context(config))
    assert 5 * 10**9 + kv(found.longest_context) <= 8 * 10**9 < 5 * 10**9 + kv(found.longest_context + 1)


def test_more_memory_never_makes_it_worse():
    order = ["too big", "tight", "comfortable"]
    verdicts = [order.index(fit_of_spec(spec(), 5 * 10**9, n * 10**8).verdict) for n in range(1, 200)]
    assert verdicts == sorted(verdicts) and set(verdicts) == {0, 1, 2}


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_nothing_is_claimed(limit):
    for found in (fit_of_spec(spec(), 10**9, limit), fit_of_sizes(10**9, limit)):
        assert found.verdict == "unknown" and found.longest_context is None


def test_without_a_size_nothing_is_claimed():
    assert fit_of_sizes(None, 10**10).verdict == "unknown"


def test_fewer_bits_are_fewer_bytes():
    by = fit.bytes_by_precision(spec())
    assert by["4"] < by["8"] < by["16"] == spec().parameters * 2


def test_the_words_say_what_there_is_to_know():
    said = {fit_of_spec(spec(), 5 * 10**9, n * 10**9).sentence for n in (4, 7, 30)}
    assert said == {
        "Too big: it needs 5.7 GB, and models may take 4.0 GB here.",
        "Tight: it takes most of the 7.0 GB that models may take; room for 12,819 tokens.",
        "Fits: 6.3 GB of the 30.0 GB that models may take; room for 40,960 tokens.",
    }
