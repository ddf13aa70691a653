"""Changes the logits before a token is chosen: logit bias, penalties for repetition, and DRY.

Everything happens on the device, from a history of tokens that may themselves not be computed yet, so the
next step can be dispatched before the last token is read. No function here forces an evaluation.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx

from macllm.engine.request import Sampling
from macllm.errors import OptionError

DRY_LONGEST = 50  # repeated sequences are measured up to this length; the penalty stays there beyond it
_LARGEST = 3e38  # keeps a penalty that overflows finite, so that no logit becomes nan


@dataclass(frozen=True, eq=False)
class History:
    """The tokens so far, newest last. A value: appending makes a new one, so keeping the old one rewinds."""

    tokens: mx.array  # (B, N) int32
    limit: int | None = None  # how many of the newest are kept; None is all

    def append(self, token: mx.array) -> "History":
        """The history with ``token`` (B,) at its end; it may still be lazy."""
        if self.limit == 0:  # nobody looks back
            return self
        surplus = 0 if self.limit is None else max(0, self.tokens.shape[1] + 1 - self.limit)
        kept = self.tokens[:, surplus:]
        column = token.astype(mx.int32)[:, None]  # (B, 1)
        return History(mx.concatenate([kept, column], axis=1), self.limit)

    def last(self, count: int) -> mx.array:
        """The newest ``count`` tokens (B, <= count); 0 is all of them."""
        return self.tokens if count == 0 or count >= self.tokens.shape[1] else self.tokens[:, -count:]


Processor: TypeAlias = Callable[[mx.array, History], mx.array]
"""(logits (B, V) float32, history) -> logits (B, V)"""


class Processors:
    """The processors that the settings ask for, in the order ``Sampling`` documents.

    A generation starts a history with its prompt, calls this on each step's logits and appends each token::

        history = processors.start(prompt)
        token = sampler(processors(logits, history))
        history = history.append(token)
    """

    def __init__(self, sampling: Sampling, vocab: int, breakers: Collection[int] = ()) -> None:
        """``vocab`` is the width V of the logits; ``breakers`` the ids at which DRY ends a sequence.

        Raises OptionError for a logit bias on a token that the model does not have.
        """
        self.steps: tuple[Processor, ...] = tuple(_build(sampling, vocab, breakers))
        self._limit = _tokens_needed(sampling)

    def start(self, prompt: Sequence[int]) -> History:
        """The history of a new generation; ``prompt`` holds every token of the context."""
        surplus = 0 if self._limit is None else max(0, len(prompt) - self._limit)
        return History(mx.array(list(prompt[surplus:]), dtype=mx.int32)[None], self._limit)

    def __call__(self, logits: mx.array, history: History) -> mx.array:
        """Logits (B, V) as they come from the model, to the sampler's; untouched when nothing is on."""
        if not self.steps:
            return logits
        logits = logits.astype(mx.float32)  # a small penalty is lost in half precision
        for step in self.steps:
            logits = step(logits, history)
        return logits


def logit_bias(logits: mx.array, tokens: mx.array, biases: mx.array) -> mx.array:
    """Adds ``biases`` (K,) to the logits (B, V) of ``tokens`` (K,); -inf forbids one."""
    return logits.at[:, tokens].add(biases)


def repetition(logits: mx.array, recent: mx.array, penalty: float) -> mx.array:
    """Makes each token of ``recent`` (B, W) less likely, once, however often it occurs there.

    Positive logits are divided by ``penalty``, the others multiplied (CTRL, https://arxiv.org/abs/1909.05858).
    """
    found = mx.take_along_axis(logits, recent, axis=-1)  # (B, W)
    found = mx.where(found > 0, found / penalty, found * penalty)
    # a token that occurs twice is written twice with the same value, never penalised twice
    return mx.put_along_axis(logits, recent, found, axis=-1)


def presence(logits: mx.array, recent: mx.array, penalty: float) -> mx.array:
    """Subtracts ``penalty`` from the logit of each distinct token of ``recent`` (B, W), as OpenAI defines it."""
    found = mx.take_along_axis(logits, recent, axis=-1) - penalty
    return mx.put_along_axis(logits, recent, found, axis=-1)


def frequency(logits: mx.array, recent: mx.array, penalty: float) -> mx.array:
    """Subtracts ``penalty`` times a token's occurrences in ``recent`` (B, W), as OpenAI defines it."""
    rows = mx.arange(logits.shape[0])[:, None]  # (B, 1)
    return logits.at[rows, recent].add(mx.array(-penalty, dtype=logits.dtype))


@dataclass(frozen=True, eq=False)
class Dry:
    """Penalises the token that would carry on a sequence which occurred before ("don't repeat yourself").

    For each earlier place whose last ``n >= allowed`` tokens are those the text ends with, the token that
    followed there loses ``multiplier * base ** (n - allowed)``; where several places speak for one token the
    longest counts. A sequence ends at a breaker, and a breaker itself is never penalised.
    (https://github.com/oobabooga/text-generation-webui/pull/5677; ``n`` is capped at ``DRY_LONGEST``.)
    """

    multiplier: float
    base: float
    allowed: int
    breakers: mx.array  # (V,) bool

    def __call__(self, logits: mx.array, recent: mx.array) -> mx.array:
        """Logits (B, V) given the tokens looked at, ``recent`` (B, W)."""
        batch, width = recent.shape
        if width < 2:  # nothing came before the last token
            return logits
        follower = recent[:, ::-1][:, :-1]  # (B, W-1), newest first: what followed the sequence at each place
        length = self._lengths(recent)  # (B, W-1)
        worth = (length >= self.allowed) & ~self.breakers[follower]
        steps = mx.minimum(length - self.allowed, DRY_LONGEST).astype(mx.float32)
        penalty = mx.minimum(self.multiplier * mx.power(self.base, steps), _LARGEST)
        penalty = mx.where(worth, penalty, 0.0)
        rows = mx.arange(batch)[:, None]  # (B, 1)
        return logits - mx.zeros(logits.shape).at[rows, follower].maximum(penalty)

    def _lengths(self, recent: mx.array) -> mx.array:
        """How many tokens before each follower equal the text's last ones: (B, W-1), newest place first."""
        batch, width = recent.shape
        reach = DRY_LONGEST + 1
        # Read backwards, every place is a window of the reversed text and the suffix is its first window. The
        # padding differs on the two sides, and from any token, so a comparison always ends within the window.
        back = mx.concatenate([recent[:, ::-1], mx.full((batch, reach), -1, dtype=mx.int32)], axis=1)
        windows = mx.as_strided(back, (batch, width, reach), (width + reach, 1, 1))[:, 1:]  # (B, W-1, reach)
        suffix = recent[:, ::-1][:, :DRY_LONGEST]
        suffix = mx.where(self.breakers[suffix], -2, suffix)
        suffix = mx.concatenate(
            [suffix, mx.full((batch, reach - suffix.shape[1]), -2, dtype=mx.int32)], axis=1
        )
        return mx.argmin(windows == suffix[:, None], axis=-1).astype(mx.int32)  # the first that differs


def breaker_tokens(breakers: Collection[str], texts: Iterable[str]) -> list[int]:
    """Ids of the tokens that contain a breaker; ``texts`` is the vocabulary in the order of its ids.

    A breaker longer than every token breaks nothing.
    """
    return [token for token, text in enumerate(texts) if any(breaker in text for breaker in breakers)]


def _build(sampling: Sampling, vocab: int, breakers: Collection[int]) -> list[Processor]:
    """The processors whose settings change anything, in their order."""
    steps: list[Processor] = []
    if sampling.logit_bias:
        steps.append(_bias(sampling.logit_bias, vocab))
    context = sampling.repetition_context
    for penalise, penalty, off in (
        (repetition, sampling.repetition_penalty, 1.0),
        (presence, sampling.presence_penalty, 0.0),
        (frequency, sampling.frequency_penalty, 0.0),
    ):
        if penalty != off:
            steps.append(_over_window(penalise, penalty, context))
    if sampling.dry_multiplier > 0.0:
        breaking = frozenset(breakers)
        broken = [token in breaking for token in range(vocab)]
        dry = Dry(
            sampling.dry_multiplier,
            sampling.dry_base,
            sampling.dry_allowed_length,
            mx.array(broken, mx.bool_),
        )
        steps.append(lambda logits, history: dry(logits, history.last(sampling.dry_context)))
    return steps


def _bias(biases: Mapping[int, float], vocab: int) -> Processor:
    """The processor of a logit bias, whose tokens must exist."""
    for token in biases:
        if token >= vocab:
            raise OptionError(
                f"logit_bias: token {token} does not exist (the model has ids 0 to {vocab - 1})"
            )
    tokens = mx.array(list(biases), dtype=mx.int32)
    values = mx.array(list(biases.values()), dtype=mx.float32)
    return lambda logits, _: logit_bias(logits, tokens, values)


def _over_window(
    penalise: Callable[[mx.array, mx.array, float], mx.array], penalty: float, context: int
) -> Processor:
    """A penalty over the newest ``context`` tokens."""
    return lambda logits, history: penalise(logits, history.last(context), penalty)


def _tokens_needed(sampling: Sampling) -> int | None:
    """How many of the newest tokens the processors look at; None is all of them."""
    contexts = []
    if sampling.repetition_penalty != 1.0 or sampling.presence_penalty or sampling.frequency_penalty:
        contexts.append(sampling.repetition_context)
    if sampling.dry_multiplier > 0.0:
        contexts.append(sampling.dry_context)
    if not contexts:
        return 0
    return None if 0 in contexts else max(contexts)
