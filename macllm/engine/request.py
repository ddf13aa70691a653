"""What a caller asks of the engine: sampling settings and limits. Plain data, serializable, no mlx."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from macllm.errors import OptionError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults are greedy decoding without penalties.

    Order of application: logit bias, repetition / presence / frequency penalties, DRY, temperature,
    top-k, top-p, min-p, XTC, then one draw.
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
    dry_multiplier: float = 0.0  # 0 is off
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_context: int = 0  # tokens looked back at; 0 is all
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None  # None draws a new one each time

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0, 100.0)
        _check("top_k", self.top_k, 0)
        _check("top_p", self.top_p, 0.0, 1.0, above=True)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("xtc_probability", self.xtc_probability, 0.0, 1.0)
        _check("xtc_threshold", self.xtc_threshold, 0.0, 0.5)
        _check("repetition_penalty", self.repetition_penalty, 0.0, above=True)
        _check("repetition_context", self.repetition_context, 0)
        _check("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _check("dry_multiplier", self.dry_multiplier, 0.0)
        _check("dry_base", self.dry_base, 1.0)
        _check("dry_allowed_length", self.dry_allowed_length, 1)
        _check("dry_context", self.dry_context, 0)


@dataclass(frozen=True)
class Limits:
    """When a generation ends and what is reported along the way."""

    max_tokens: int | None = None  # None: until a stop token or the end of the context
    stop: tuple[str, ...] = ()  # strings; the text ends before the first one found
    logprobs: int = -1  # log-probabilities of the chosen and of this many top tokens; -1 is off
    ignore_eos: bool = False  # benchmarks: decode past stop tokens

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, 0)
        _check("logprobs", self.logprobs, -1, 20)
        if any(not text for text in self.stop):
            raise OptionError("stop: an empty stop string ends every reply at once; leave it out")


def _check(name: str, value: float, low: float, high: float = float("inf"), *, above: bool = False) -> None:
    """Raises OptionError unless ``low <= value <= high`` (``low < value`` with ``above``)."""
    inside = low < value <= high if above else low <= value <= high
    if not inside:  # also catches nan
        start = "above" if above else "at least"
        end = f" and at most {high:g}" if high != float("inf") else ""
        raise OptionError(f"{name}={value} is out of range (expected {start} {low:g}{end})")
