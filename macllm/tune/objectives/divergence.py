"""How far a student's distribution is from a teacher's, a row of logits at a time: forward KL, reverse KL and JS.

Of all tokens, or of the teacher's likeliest and one share for all others, which is what is kept of it on disk: a
divergence of such coarser distributions is never above that of the whole ones.
"""

import math
from dataclasses import dataclass

import mlx.core as mx

from macllm.nn.decoder import Decoder
from macllm.tune.loss import RowLoss
from macllm.tune.settings import Divergence


@dataclass(frozen=True)
class Measure:
    """A divergence at a ``temperature`` that both distributions are softened by.

    ``mixing`` is the teacher's share in the mixture that ``js`` compares both with (GKD's beta, arXiv 2306.13649): near
    0 its gradient is that of forward KL, near 1 that of reverse KL. Values are times the temperature squared, by
    which gradients shrink (arXiv 1503.02531).
    """

    kind: Divergence
    temperature: float = 1.0
    mixing: float = 0.5

    def of(self, teacher: mx.array, student: mx.array) -> mx.array:
        """Of log-probabilities (n, K) each: (n,), float32."""
        if self.kind == "forward":
            found = _kl(teacher, student)
        elif self.kind == "reverse":
            found = _kl(student, teacher)
        else:
            share = self.mixing
            mixture = mx.logaddexp(teacher + math.log(share), student + math.log1p(-share))
            found = share * _kl(teacher, mixture) + (1 - share) * _kl(student, mixture)
        return found * self.temperature**2


class FromTeacher(RowLoss):
    """The divergence from a teacher that is there: told are its states (n, E)."""

    def __init__(self, measure: Measure, teacher: Decoder, vocab: int) -> None:
        """``vocab``: tokens that both have; what a head has beyond them is padding."""
        self._measure, self._teacher, self._vocab = measure, teacher, vocab

    def losses(self, logits: mx.array, *told: mx.array) -> mx.array:
        (states,) = told
        own, others = (
            log_probs(one[:, : self._vocab], self._measure.temperature)
            for one in (logits, self._teacher.logits(states))
        )
        return self._measure.of(mx.stop_gradient(others), own)


class FromLikeliest(RowLoss):
    """The divergence from what is kept of a teacher: ids (n, k), and log p (n, k + 1), the last of all others."""

    def __init__(self, measure: Measure, vocab: int) -> None:
        self._measure, self._vocab = measure, vocab

    def losses(self, logits: mx.array, *told: mx.array) -> mx.array:
        ids, kept = told
        return self._measure.of(
            kept, coarser(log_probs(logits[:, : self._vocab], self._measure.temperature), ids)
        )


def log_probs(logits: mx.array, temperature: float) -> mx.array:
    """Log-probabilities (n, V), float32, of logits (n, V)."""
    wide = logits.astype(mx.float32) / temperature
    return wide - mx.logsumexp(wide, axis=-1, keepdims=True)


def coarser(log_prob: mx.array, ids: mx.array) -> mx.array:
    """Log-probabilities (n, k + 1) of the tokens (n, k) and, last, of all others together; of (n, V), V above k."""
    chosen = mx.take_along_axis(log_prob, ids, axis=-1)
    rest = mx.put_along_axis(log_prob, ids, mx.array(-mx.inf), axis=-1)
    return mx.concatenate([chosen, mx.logsumexp(rest, axis=-1, keepdims=True)], axis=-1)


def likeliest(log_prob: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """The ids (n, k) of the likeliest tokens, in the order of their ids, and :func:`coarser` of them (n, k + 1)."""
    ids = mx.sort(mx.argpartition(-log_prob, count - 1, axis=-1)[:, :count].astype(mx.int32), axis=-1)
    return ids, coarser(log_prob, ids)


def _kl(one: mx.array, other: mx.array) -> mx.array:
    return (mx.exp(one) * (one - other)).sum(axis=-1)
