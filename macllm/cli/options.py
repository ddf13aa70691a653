"""Option groups that several commands share, under mlx-lm's flag names, and what they say as engine data."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from macllm.backend import DTYPES
from macllm.engine.request import Limits, Sampling

MAX_TOKENS = 2048  # where nobody watches who could stop a model that goes in circles

# flag, field of Sampling, number type, help; the order is the help's
_SAMPLING: tuple[tuple[str, str, type[int] | type[float], str], ...] = (
    ("--temp", "temperature", float, "randomness; 0 always takes the most likely token"),
    ("--top-k", "top_k", int, "draw from the N most likely tokens; 0 is off"),
    (
        "--top-p",
        "top_p",
        float,
        "draw from the most likely tokens that together have this probability; 1 is off",
    ),
    (
        "--min-p",
        "min_p",
        float,
        "drop tokens below this share of the most likely one's probability; 0 is off",
    ),
    ("--xtc-probability", "xtc_probability", float, "chance of a step to leave out the most likely tokens"),
    ("--xtc-threshold", "xtc_threshold", float, "probability above which XTC may leave a token out"),
    (
        "--repetition-penalty",
        "repetition_penalty",
        float,
        "above 1 makes recent tokens less likely; 1 is off",
    ),
    ("--repetition-context", "repetition_context", int, "tokens that the penalties look back at; 0 is all"),
    ("--presence-penalty", "presence_penalty", float, "taken once from the logit of a token that occurred"),
    ("--frequency-penalty", "frequency_penalty", float, "taken from a token's logit for each occurrence"),
    ("--dry-multiplier", "dry_multiplier", float, "strength of the penalty on repeated sequences; 0 is off"),
    ("--dry-base", "dry_base", float, "growth of that penalty with the sequence's length"),
    ("--dry-allowed-length", "dry_allowed_length", int, "longest sequence that may repeat free of it"),
    ("--seed", "seed", int, "the same seed gives the same text"),
)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the options that :func:`sampling_from` and :func:`limits_from` read."""
    group = parser.add_argument_group("sampling (without these, the model's own defaults)")
    for flag, field, kind, text in _SAMPLING:
        metavar = "N" if kind is int else "X"
        group.add_argument(flag, dest=field, type=_checked(Sampling, field, kind), metavar=metavar, help=text)
    group.add_argument(
        "--logit-bias",
        type=_bias,
        action="append",
        metavar="ID=VALUE",
        help="add VALUE to the logit of token ID; may be repeated",
    )
    group = parser.add_argument_group("limits")
    count = _checked(Limits, "max_tokens", int)
    group.add_argument(
        "--max-tokens",
        type=count,
        metavar="N",
        help=f"end after N tokens; 0 only reads the prompt (default: {MAX_TOKENS}, on a terminal the context)",
    )
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be repeated", type=_stop
    )


def sampling_from(args: argparse.Namespace, defaults: Sampling) -> Sampling:
    """``defaults`` (the model's) with what the user gave on top."""
    given: dict[str, Any] = {
        field: value for _, field, _, _ in _SAMPLING if (value := getattr(args, field)) is not None
    }
    if args.logit_bias:
        given["logit_bias"] = {**defaults.logit_bias, **dict(args.logit_bias)}
    return replace(defaults, **given)


def limits_from(args: argparse.Namespace, *, watched: bool = False) -> Limits:
    """The limits that the user gave; ``watched`` says that a person can stop the reply."""
    default = None if watched else MAX_TOKENS
    most = args.max_tokens if args.max_tokens is not None else default
    limits = Limits(max_tokens=most, stop=tuple(args.stop or ()))
    logprobs = getattr(args, "logprobs", None)  # not an option of every command
    return limits if logprobs is None else replace(limits, logprobs=logprobs)


def add_logprobs(parser: argparse.ArgumentParser) -> None:
    """Adds ``--logprobs`` for a command whose JSON reports them."""
    count = _checked(Limits, "logprobs", int)
    parser.add_argument(
        "--logprobs", type=count, metavar="N", help="with --json: log-probabilities, of N top tokens too"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds ``--json`` (``args.json``): the result as one JSON object on stdout, nothing else there."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Adds ``--dtype`` (``args.dtype``, None when not given): overrides the backend's compute type."""
    parser.add_argument("--dtype", choices=DTYPES, help="type to compute in (default: the fastest here)")


def positive(text: str) -> int:
    """A parser of whole numbers from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def _checked(
    kind: type[Sampling] | type[Limits], field: str, number: type[int] | type[float]
) -> Callable[[str], Any]:
    """A parser of one number that refuses what the field refuses, before any model is loaded."""

    def parse(text: str) -> Any:
        try:
            value = number(text)
        except ValueError:
            what = "a whole number" if number is int else "a number"
            raise argparse.ArgumentTypeError(f"'{text}' is not {what}") from None
        replace(kind(), **{field: value})  # type: ignore[arg-type]  # raises OptionError, naming the range
        return value

    return parse


def _bias(text: str) -> tuple[int, float]:
    token, _, value = text.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not ID=VALUE, such as 42=-5") from None


def _stop(text: str) -> str:
    Limits(stop=(text,))
    return text
