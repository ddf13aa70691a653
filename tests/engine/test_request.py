"""Every setting out of range is refused in one sentence with its name, its value and the range."""

import math

import pytest

from macllm.engine.request import Limits, Sampling
from macllm.errors import OptionError

OUTSIDE = [
    ("temperature", -0.1, "at least 0 and at most 100"),
    ("temperature", 100.5, "at least 0 and at most 100"),
    ("temperature", math.nan, "at least 0"),
    ("temperature", "hot", "a number"),
    ("temperature", True, "a number"),
    ("top_k", -1, "at least 0"),
    ("top_k", 2.5, "a whole number"),
    ("top_p", 0.0, "above 0 and at most 1"),
    ("top_p", 1.01, "above 0 and at most 1"),
    ("min_p", -0.01, "at least 0 and at most 1"),
    ("min_p", 1.5, "at least 0 and at most 1"),
    ("xtc_probability", 2, "at least 0 and at most 1"),
    ("xtc_threshold", 0.6, "at least 0 and at most 0.5"),
    ("repetition_penalty", 0.0, "at least 0.01 and at most 100"),
    ("repetition_penalty", math.inf, "at least 0.01 and at most 100"),
    ("repetition_context", -1, "at least 0"),
    ("presence_penalty", 2.1, "at least -2 and at most 2"),
    ("frequency_penalty", -2.1, "at least -2 and at most 2"),
    ("dry_multiplier", -1.0, "at least 0 and at most 100"),
    ("dry_base", 0.9, "at least 1 and at most 100"),
    ("dry_allowed_length", 0, "at least 1"),
    ("dry_context", -5, "at least 0"),
    ("seed", -1, "at least 0 and at most"),
    ("seed", 2**64, "at least 0 and at most 18446744073709551615)"),
]


@pytest.mark.parametrize(("name", "value", "expected"), OUTSIDE)
def test_sampling_out_of_range(name, value, expected):
    with pytest.raises(OptionError) as refused:
        Sampling(**{name: value})
    message = str(refused.value)
    assert message.startswith(f"{name}={value!r} is out of range")
    assert expected in message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_tokens", -1, "at least 0"),
        ("logprobs", 21, "at least -1 and at most 20"),
        ("logprobs", -2, "-1"),
    ],
)
def test_limits_out_of_range(name, value, expected):
    with pytest.raises(OptionError, match=f"^{name}={value} is out of range .*{expected}"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        ({3: 101.0}, r"logit_bias\[3\]=101.0 .*at least -100 and at most 100"),
        ({3: math.inf}, r"logit_bias\[3\]=inf"),
        ({-1: 1.0}, "logit_bias token=-1 .*a whole number at least 0"),
        ({"3": 1.0}, "logit_bias token='3' .*a whole number"),
    ],
)
def test_logit_biases_out_of_range(biases, expected):
    with pytest.raises(OptionError, match=expected):
        Sampling(logit_bias=biases)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: Limits(stop=("a", "")), "^stop=.*empty string"),
        (lambda: Limits(stop="END"), "^stop='END' is not a list of strings"),
        (lambda: Sampling(dry_breakers=("",)), "^dry_breakers=.*empty string"),
        (lambda: Sampling(dry_breakers="\n:"), "^dry_breakers=.*not a list of strings"),
    ],
)
def test_texts_that_cannot_be_used(build, expected):
    with pytest.raises(OptionError, match=expected):
        build()


def test_the_edges_of_every_range_are_allowed():
    Sampling(
        temperature=100,
        top_k=0,
        top_p=1e-9,
        min_p=1,
        xtc_probability=1,
        xtc_threshold=0.5,
        repetition_penalty=0.01,
        presence_penalty=-2,
        frequency_penalty=2,
        dry_base=1,
        dry_allowed_length=1,
        logit_bias={0: -math.inf, 1: -100, 2: 100},
        seed=2**64 - 1,
    )
    Limits(max_tokens=0, logprobs=20, stop=())
