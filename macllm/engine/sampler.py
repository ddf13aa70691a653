"""Chooses the next token: temperature, top-k, top-p, min-p, XTC, then one draw with a seed of its own.

Each truncation is a threshold on the scaled logits, so nothing is gathered or scattered over the vocabulary
and tokens that tie at the edge stay or fall together, whatever order a device sorts them in.
"""

import math
import secrets
from collections.abc import Sequence

import mlx.core as mx

from macllm.engine.request import Sampling

_COLDEST = 1e-30  # below it a float32 division by the temperature turns 0 / T into nan
_SORT_AT_ONCE = 2048  # on the CPU halving a block beats sorting it above this size


class Sampler:
    """Draws tokens as the settings say. ``seed`` is what reproduces the draws; ``step`` counts them.

    The draw of step n depends on the seed, n and the logits alone: not on other generations, on MLX's global
    random state, nor on when anything is evaluated. Setting ``step`` back repeats draws.
    """

    def __init__(self, sampling: Sampling, xtc_keep: Sequence[int] = ()) -> None:
        """``xtc_keep``: ids that XTC must not take away, as a rule newline and the stop tokens."""
        self.seed = sampling.seed if sampling.seed is not None else secrets.randbits(32)
        self.step = 0
        self.greedy = sampling.temperature == 0.0
        self._sampling = sampling
        self._xtc_keep = mx.array(list(xtc_keep), dtype=mx.int32)

    def __call__(self, logits: mx.array) -> mx.array:
        """Token ids (B,) drawn from logits (B, V); lazy. The lowest id wins a tie at temperature 0."""
        if self.greedy:
            return mx.argmax(logits, axis=-1)
        key = mx.random.key(_step_seed(self.seed, self.step))
        self.step += 1
        return mx.random.categorical(self._weights(logits), key=key)

    def distribution(self, logits: mx.array) -> mx.array:
        """Log-probabilities (..., V) that a draw from logits (..., V) follows; -inf for what cannot come.

        They include XTC's chance not to act, so they are exact for rejection sampling.
        """
        if self.greedy:
            best = mx.argmax(logits, axis=-1, keepdims=True)
            return mx.where(mx.arange(logits.shape[-1]) == best, 0.0, -mx.inf)
        weights = self._weights(logits)
        return weights - mx.logsumexp(weights, axis=-1, keepdims=True)

    def _weights(self, logits: mx.array) -> mx.array:
        """The distribution's logarithm up to a constant: (..., V) float32."""
        settings = self._sampling
        scaled = logits.astype(mx.float32)
        # from the maximum first: no temperature overflows what is at most 0
        scaled = (scaled - mx.max(scaled, axis=-1, keepdims=True)) / max(settings.temperature, _COLDEST)
        floor = truncation_floor(scaled, settings.top_k, settings.top_p, settings.min_p)
        if floor is not None:
            scaled = mx.where(scaled >= floor, scaled, -mx.inf)
        if settings.xtc_probability > 0.0:
            scaled = exclude_top(scaled, settings.xtc_probability, settings.xtc_threshold, self._xtc_keep)
        return scaled


def truncation_floor(scaled: mx.array, top_k: int, top_p: float, min_p: float) -> mx.array | None:
    """The value (..., 1) that ``scaled`` logits (..., V), whose maximum is 0, must reach; None keeps all.

    top-k keeps the k most likely; top-p, among those and with their sum as 1, the fewest whose probability
    reaches ``top_p``; min-p what is at least ``min_p`` times as likely as the most likely.
    """
    floor: mx.array | None = None
    ranked = scaled
    if 0 < top_k < scaled.shape[-1]:
        ranked = mx.topk(scaled, top_k, axis=-1)
        floor = mx.min(ranked, axis=-1, keepdims=True)
    if top_p < 1.0:
        weight = mx.exp(scaled)
        if floor is not None:
            weight = mx.where(scaled >= floor, weight, 0.0)  # all that tie with the k-th, so not ranked's sum
        target = max(top_p, _COLDEST) * weight.sum(axis=-1, keepdims=True)
        block = scaled.shape[-1] if mx.default_device() == mx.gpu else _SORT_AT_ONCE
        floor = nucleus_floor(ranked, target, block)
    if min_p > 0.0:
        least = math.log(min_p)
        floor = mx.array(least) if floor is None else mx.maximum(floor, least)
    return floor


def nucleus_floor(scaled: mx.array, target: mx.array, block: int) -> mx.array:
    """The smallest of ``scaled`` (..., N) with less than ``target`` (..., 1) of weight strictly above it.

    Sorting a vocabulary costs more on the CPU than a decode step's attention, so down to ``block`` values the
    search partitions and goes on in the half where the weight reaches the target. A GPU partitions by
    sorting: there ``block`` is N.
    """
    above = mx.zeros_like(target)  # the weight of all that is larger than the values still searched
    rounds = max(0, math.ceil(math.log2(scaled.shape[-1] / block)))
    missing = -scaled.shape[-1] % (1 << rounds)
    if missing:  # equal halves down to the last round; what is added weighs nothing
        scaled = mx.concatenate([scaled, mx.full((*scaled.shape[:-1], missing), -mx.inf)], axis=-1)
    for _ in range(rounds):
        half = scaled.shape[-1] // 2
        scaled = mx.partition(scaled, half, axis=-1)
        lower, upper = scaled[..., :half], scaled[..., half:]
        reached = above + mx.exp(upper).sum(axis=-1, keepdims=True)
        inside = reached >= target
        above = mx.where(inside, above, reached)
        scaled = mx.where(inside, upper, lower)
    scaled = mx.sort(scaled, axis=-1)
    larger = above + mx.cumsum(mx.exp(scaled), axis=-1, reverse=True, inclusive=False)
    dropped = (larger >= target).sum(axis=-1, keepdims=True)
    # never all: above stays below the target, and nothing in the last block is larger than its largest
    return mx.take_along_axis(scaled, dropped, axis=-1)


def exclude_top(scaled: mx.array, probability: float, threshold: float, keep: mx.array) -> mx.array:
    """XTC: of the tokens at least ``threshold`` likely, a step drops all but the least likely of them.

    It does so with ``probability``, and not at all where a token of ``keep`` (K,) would be dropped
    (https://github.com/oobabooga/text-generation-webui/pull/6335). Instead of tossing a coin this returns the
    mixture of both outcomes, from which a draw has the same distribution: (..., V), up to a constant.
    """
    total = mx.logsumexp(scaled, axis=-1, keepdims=True)
    edge = mx.maximum(total + (math.log(threshold) if threshold else -math.inf), -3e38)  # never -inf itself
    least = mx.min(mx.where(scaled >= edge, scaled, mx.inf), axis=-1, keepdims=True)  # inf: none is
    dropped = scaled > least  # (..., V)
    if keep.size:
        dropped = dropped & ~mx.any(mx.take(dropped, keep, axis=-1), axis=-1, keepdims=True)
    rest = mx.logsumexp(mx.where(dropped, -mx.inf, scaled), axis=-1, keepdims=True) - total  # log share kept
    spared = mx.log(mx.array(1.0 - probability))  # -inf at probability 1
    return scaled + mx.where(dropped, spared, mx.logaddexp(spared, math.log(probability) - rest))


def top_logprobs(logits: mx.array, token: mx.array, count: int) -> tuple[mx.array, mx.array, mx.array]:
    """Natural log-probabilities of the chosen token (B,) and of the ``count`` likeliest, best first.

    Returns the token's (B,), ids (B, count) and theirs (B, count), all lazy. They are the model's own: the
    log-softmax of the logits (B, V) it is given, which the engine takes before penalties and truncation, so
    they compare across settings. Equal ones come in the order of their ids.
    """
    scores = logits.astype(mx.float32)
    total = mx.logsumexp(scores, axis=-1)  # (B,)
    chosen = mx.take_along_axis(scores, token[:, None], axis=-1)[:, 0] - total
    count = min(count, scores.shape[-1])
    if count == 0:
        empty = mx.zeros((scores.shape[0], 0))
        return chosen, empty.astype(mx.int32), empty
    ids = mx.sort(mx.argpartition(-scores, count - 1, axis=-1)[:, :count].astype(mx.int32), axis=-1)
    best = mx.take_along_axis(scores, ids, axis=-1)  # (B, count)
    order = mx.argsort(-best, axis=-1)
    return (
        chosen,
        mx.take_along_axis(ids, order, axis=-1),
        mx.take_along_axis(best, order, axis=-1) - total[:, None],
    )


def _step_seed(seed: int, step: int) -> int:
    """64 bits for one step of one seed: SplitMix64's finaliser, so that neighbours have nothing in common."""
    mixed = seed
    for value in (0, step):
        mixed = (mixed + value + 0x9E3779B97F4A7C15) & _64_BITS
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64_BITS
        mixed ^= mixed >> 31
    return mixed


_64_BITS = 2**64 - 1
