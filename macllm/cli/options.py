"""Option groups that several commands share, under mlx-lm's flag names, and what they say as engine data."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from macllm.backend import DTYPES
from macllm.engine.request import Limits, Sampling
from macllm.engine.settings_text import SETTINGS
from macllm.spec.memory import KV_BITS

MAX_TOKENS = 2048  # where nobody watches who could stop a model that goes in circles

_NUMBERS: Mapping[str, type[int] | type[float]] = {"whole": int, "number": float}
_SAMPLING = tuple(setting for setting in SETTINGS if setting.of is Sampling)  # the order is the help's


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the options that :func:`sampling_from` and :func:`limits_from` read."""
    group = parser.add_argument_group("sampling (without these, the model's own defaults)")
    for setting in _SAMPLING:
        kind = _NUMBERS[setting.kind]
        group.add_argument(
            f"--{setting.name}",
            dest=setting.field,
            type=_checked(Sampling, setting.field, kind),
            metavar="N" if kind is int else "X",
            help=setting.help,
        )
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


def overrides_from(args: argparse.Namespace) -> dict[str, Any]:
    """What the user gave, by the names of Sampling's and Limits' fields, as a chat of the app keeps it."""
    given = _given(args)
    if args.logit_bias:
        given["logit_bias"] = {str(token): bias for token, bias in args.logit_bias}
    if args.max_tokens is not None:
        given["max_tokens"] = args.max_tokens
    if args.stop:
        given["stop"] = list(args.stop)
    return given


def sampling_from(args: argparse.Namespace, defaults: Sampling) -> Sampling:
    """``defaults`` (the model's) with what the user gave on top."""
    given = _given(args)
    if args.logit_bias:
        given["logit_bias"] = {**defaults.logit_bias, **dict(args.logit_bias)}
    return replace(defaults, **given)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    found = {setting.field: getattr(args, setting.field) for setting in _SAMPLING}
    return {name: value for name, value in found.items() if value is not None}


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


def add_kv_bits(parser: argparse.ArgumentParser) -> None:
    """Adds ``--kv-bits`` (``args.kv_bits``, None when not given): packs the keys and values of the cache."""
    parser.add_argument(
        "--kv-bits",
        type=int,
        choices=KV_BITS,
        help="hold keys and values in so many bits: a long context takes about half the memory, or under a third",
    )


def add_adapter(parser: argparse.ArgumentParser) -> None:
    """Adds ``--adapter`` (``args.adapter``, None when not given): what the model answers with."""
    parser.add_argument(
        "--adapter",
        metavar="NAME",
        help="answer with this adapter: a name that `macllm adapters list` shows, or a folder",
    )


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
