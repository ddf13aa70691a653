"""What a caller asks of the engine: sampling settings and limits. Plain data, serializable, no mlx."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from macllm.errors import OptionError

_SEEDS = 2**32  # short enough to be read and typed again


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults are greedy decoding without penalties.

    Order of application: logit bias, repetition / presence / frequency penalties, DRY, temperature,
    top-k, top-p, min-p, XTC, then one draw. The penalties see the prompt and what was generated.
    Tokens that tie at the edge of a truncation are kept or dropped together.
    """

    temperature: float = 0.0  # 0 takes the most likely token
    top_k: int = 0  # 0 is off
    top_p: float = 1.0  # 1 is off
    min_p: float = 0.0  # 0 is off
    xtc_probability: float = 0.0  # chance a step drops all but the least likely token above the threshold
    xtc_threshold: float = 0.1
    repetition_penalty: float = 1.0  # 1 is off
    repetition_context: int = 64  # tokens looked back at by the three penalties; 0 is all
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0  # 0 is off; else multiplier * base ** (repeated length - allowed length)
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_context: int = 0  # tokens looked back at; 0 is all
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # -100 to 100; -inf forbids the token
    seed: int | None = None  # None draws a new one each time

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0, 100.0)
        _check("top_k", self.top_k, 0, whole=True)
        _check("top_p", self.top_p, 0.0, 1.0, above=True)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("xtc_probability", self.xtc_probability, 0.0, 1.0)
        _check("xtc_threshold", self.xtc_threshold, 0.0, 0.5)
        _check("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _check("repetition_context", self.repetition_context, 0, whole=True)
        _check("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _check("dry_multiplier", self.dry_multiplier, 0.0, 100.0)
        _check("dry_base", self.dry_base, 1.0, 100.0)
        _check("dry_allowed_length", self.dry_allowed_length, 1, whole=True)
        _check("dry_context", self.dry_context, 0, whole=True)
        _check_texts("dry_breakers", self.dry_breakers, "it would end every repeated sequence at once")
        if not isinstance(self.logit_bias, Mapping):
            raise OptionError(f"logit_bias={self.logit_bias!r} is not a mapping of token ids to numbers")
        for token, bias in self.logit_bias.items():
            _check("logit_bias token", token, 0, whole=True)
            if bias != -math.inf:
                _check(f"logit_bias[{token}]", bias, -100.0, 100.0)
        if self.seed is not None:
            _check("seed", self.seed, 0, 2**64 - 1, whole=True)


@dataclass(frozen=True)
class Limits:
    """When a generation ends and what is reported along the way."""

    max_tokens: int | None = None  # None: until a stop token or the end of the context
    stop: tuple[str, ...] = ()  # strings; the text ends before the first one found
    logprobs: int = -1  # log-probabilities of the chosen and of this many top tokens; -1 is off
    ignore_eos: bool = False  # benchmarks: decode past stop tokens

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, 0, whole=True)
        _check("logprobs", self.logprobs, -1, 20, whole=True)
        _check_texts("stop", self.stop, "it would end every reply at once")


def _check(
    name: str, value: Any, low: float, high: float = math.inf, *, above: bool = False, whole: bool = False
) -> None:
    """Raises OptionError unless ``value`` is a number with ``low <= value <= high``.

    ``above`` leaves ``low`` itself out; ``whole`` asks for an integer.
    """
    number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if number:
        inside = low < value <= high if above else low <= value <= high  # false for nan
        if inside:
            return
    noun = "a whole number" if whole else "a number"
    start = "above" if above else "at least"
    most = high if isinstance(high, int) else f"{high:g}"  # 2**64 - 1 has no exact float
    end = f" and at most {most}" if high != math.inf else ""
    raise OptionError(f"{name}={value!r} is out of range (expected {noun} {start} {low:g}{end})")


def _check_texts(name: str, texts: object, harm: str) -> None:
    """Raises OptionError unless ``texts`` is a list or tuple of strings that are not empty."""
    if not isinstance(texts, list | tuple) or any(not isinstance(text, str) for text in texts):
        raise OptionError(f"{name}={texts!r} is not a list of strings")
    if any(not text for text in texts):
        raise OptionError(f"{name}={texts!r} holds an empty string; leave it out, {harm}")


def new_seed() -> int:
    """A seed for what shall be had again: drawn here, it can be kept with the reply."""
    return random.randrange(_SEEDS)
