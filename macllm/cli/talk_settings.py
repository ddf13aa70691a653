"""A conversation's settings as it keeps them, plain values by name, and as the engine takes them."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from macllm.engine.request import Limits, Sampling
from macllm.errors import InputError


def applied(settings: Mapping[str, Any], sampling: Sampling, limits: Limits) -> tuple[Sampling, Limits]:
    """A conversation's settings on top of a model's. Raises OptionError."""
    from macllm_tui.prompting import split_settings

    values, limits = split_settings(settings, limits)
    unknown = next((name for name in values if not hasattr(sampling, name)), None)
    if unknown is not None:
        raise InputError(f"this chat has a setting '{unknown}' that this macllm does not know; update macllm")
    return replace(sampling, **values), limits


def differing(sampling: Sampling, own: Sampling) -> dict[str, Any]:
    """What the command line asked for, as a chat keeps it: plain values by name."""
    given = {field.name: getattr(sampling, field.name) for field in fields(Sampling)}
    found = {name: value for name, value in given.items() if value != getattr(own, name)}
    if "logit_bias" in found:
        found["logit_bias"] = {str(token): bias for token, bias in found["logit_bias"].items()}
    return found
