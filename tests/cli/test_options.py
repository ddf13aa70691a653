"""The shared options: each one changes what is asked of the engine, and a bad value is met before any work."""

import argparse

import pytest

from macllm.cli.main import CommandParser
from macllm.cli.options import (
    MAX_TOKENS,
    add_dtype,
    add_json,
    add_logprobs,
    add_sampling,
    limits_from,
    sampling_from,
)
from macllm.engine.request import Limits, Sampling
from macllm.errors import InputError, OptionError

DEFAULTS = Sampling(temperature=0.6, top_k=20, top_p=0.95, logit_bias={7: 1.0})


def parse(*argv: str) -> argparse.Namespace:
    parser = CommandParser("macllm test", "help")
    add_sampling(parser)
    add_logprobs(parser)
    add_json(parser)
    add_dtype(parser)
    return parser.parse(argv)


def test_nothing_given_is_the_models_defaults() -> None:
    assert sampling_from(parse(), DEFAULTS) == DEFAULTS
    assert limits_from(parse(), watched=True) == Limits()
    assert limits_from(parse()) == Limits(max_tokens=MAX_TOKENS)


@pytest.mark.parametrize(
    ("flag", "value", "field", "expected"),
    [
        ("--temp", "0", "temperature", 0.0),
        ("--top-k", "5", "top_k", 5),
        ("--top-p", "0.5", "top_p", 0.5),
        ("--min-p", "0.05", "min_p", 0.05),
        ("--xtc-probability", "0.5", "xtc_probability", 0.5),
        ("--xtc-threshold", "0.2", "xtc_threshold", 0.2),
        ("--repetition-penalty", "1.1", "repetition_penalty", 1.1),
        ("--repetition-context", "0", "repetition_context", 0),
        ("--presence-penalty", "-0.5", "presence_penalty", -0.5),
        ("--frequency-penalty", "0.5", "frequency_penalty", 0.5),
        ("--dry-multiplier", "0.8", "dry_multiplier", 0.8),
        ("--dry-base", "2", "dry_base", 2.0),
        ("--dry-allowed-length", "4", "dry_allowed_length", 4),
        ("--dry-context", "512", "dry_context", 512),
        ("--seed", "0", "seed", 0),
    ],
)
def test_an_option_overrides_its_field_only(flag: str, value: str, field: str, expected: float) -> None:
    sampling = sampling_from(parse(flag, value), DEFAULTS)
    assert getattr(sampling, field) == expected
    assert getattr(DEFAULTS, field) != expected
    others = {name for name in vars(DEFAULTS) if getattr(sampling, name) != getattr(DEFAULTS, name)}
    assert others == {field}


def test_logit_biases_add_up() -> None:
    args = parse("--logit-bias", "3=-5", "--logit-bias", "4=2.5")
    assert sampling_from(args, DEFAULTS).logit_bias == {7: 1.0, 3: -5.0, 4: 2.5}


def test_limits() -> None:
    args = parse("--max-tokens", "0", "--stop", "\n", "--stop", "END", "--logprobs", "3")
    assert limits_from(args) == Limits(max_tokens=0, stop=("\n", "END"), logprobs=3)


def test_json_and_dtype() -> None:
    assert (parse().json, parse().dtype) == (False, None)
    args = parse("--json", "--dtype", "bfloat16")
    assert (args.json, args.dtype) == (True, "bfloat16")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--temp", "-1"], "temperature=-1.0 is out of range"),
        (["--temp", "nan"], "temperature=nan is out of range"),
        (["--top-p", "0"], "top_p=0.0 is out of range"),
        (["--top-k", "-3"], "top_k=-3 is out of range"),
        (["--max-tokens", "-1"], "max_tokens=-1 is out of range"),
        (["--logprobs", "21"], "logprobs=21 is out of range"),
        (["--stop", ""], "empty string"),
    ],
)
def test_a_value_out_of_range_is_refused_while_parsing(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(*argv)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--temp", "hot"], "argument --temp: 'hot' is not a number"),
        (["--top-k", "1.5"], "argument --top-k: '1.5' is not a whole number"),
        (["--logit-bias", "x"], "argument --logit-bias: 'x' is not ID=VALUE, such as 42=-5"),
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--stop"], "argument --stop: expected one argument"),
    ],
)
def test_a_value_that_is_none_is_refused_by_option(argv: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(*argv)
    assert message in str(caught.value)
    assert str(caught.value).endswith("; see `macllm test --help`")
