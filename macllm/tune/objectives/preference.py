"""Preferring an answer to another: DPO and what came after it, over the log-probabilities of whole answers.

A row is two examples, the chosen and the rejected answer to one prompt. Names and formulas are TRL's; where a loss has
a term of its own for what is chosen, that is a mean over the answer's tokens, so that every pair counts the same
however pairs are batched (TRL takes the mean over all tokens of a batch).
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm.nn.decoder import Decoder
from macllm.tune.batches import Batch
from macllm.tune.examples import Example
from macllm.tune.log_probs import answer_log_probs
from macllm.tune.objective import Objective
from macllm.tune.objectives.reference import Reference

_CERTAIN = -1e-7  # the mean log-probability of a token beyond which an answer cannot be more likely


@dataclass(frozen=True)
class Pairs:
    """Of P pairs: log-probabilities of both answers, (P,) float32 each, and how many tokens they have.

    By the model that learns, and by the base (zeros where the objective does not ask it).
    """

    chosen: mx.array
    rejected: mx.array
    chosen_tokens: mx.array
    rejected_tokens: mx.array
    base_chosen: mx.array
    base_rejected: mx.array


@dataclass(frozen=True)
class Judged:
    """Of P pairs, (P,) each: the losses, and the rewards that the model implies for both answers."""

    losses: mx.array
    chosen: mx.array
    rejected: mx.array


class Preference(Objective):
    """A loss of pairs, each of them counting one."""

    together: ClassVar[int] = 2
    packs: ClassVar[bool] = False

    def __init__(self, reference: Reference | None) -> None:
        """``reference``: what the base says; None for a loss that does not ask it."""
        self._reference = reference

    @abstractmethod
    def judge(self, pairs: Pairs) -> Judged:
        """The losses and rewards of pairs."""

    def begin(self, model: Decoder, examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        """As :meth:`Objective.begin`: the base's log-probabilities."""
        if self._reference is not None:
            yield from self._reference.begin(model, examples)

    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        losses = self.judge(self._pairs(model, batch, checkpoint=checkpoint, learns=learns)).losses
        return losses.sum(), losses.size

    def figures(self, model: Decoder, batch: Batch) -> Mapping[str, tuple[float, int]]:
        """TRL's figures of the rewards; an accuracy is the share of pairs whose chosen answer has the higher one."""
        judged = self.judge(self._pairs(model, batch, learns=False))
        chosen, rejected = (np.array(one, np.float64) for one in (judged.chosen, judged.rejected))
        return reward_figures(chosen, rejected)

    def _pairs(self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True) -> Pairs:
        found, counts = answer_log_probs(model, batch, checkpoint=checkpoint, learns=learns)
        base = mx.zeros(found.shape)
        if self._reference is not None:
            base = mx.array(self._reference.of(batch))
        tokens = mx.array(counts.astype(np.float32))
        return Pairs(found[::2], found[1::2], tokens[::2], tokens[1::2], base[::2], base[1::2])


def reward_figures(
    chosen: NDArray[np.float64], rejected: NDArray[np.float64]
) -> dict[str, tuple[float, int]]:
    """Sums and counts by TRL's names, of the rewards (P,) of pairs."""
    sums = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).astype(np.float64),
        "rewards/margins": chosen - rejected,
    }
    return {name: (float(one.sum()), one.size) for name, one in sums.items()}


class DPO(Preference):
    """Direct preference optimization (arXiv 2305.18290), with ``label_smoothing`` conservative (cDPO)."""

    def __init__(self, beta: float, label_smoothing: float, reference: Reference) -> None:
        super().__init__(reference)
        self._beta, self._smoothing = beta, label_smoothing

    def judge(self, pairs: Pairs) -> Judged:
        chosen = self._beta * (pairs.chosen - pairs.base_chosen)
        rejected = self._beta * (pairs.rejected - pairs.base_rejected)
        return Judged(smoothed(chosen - rejected, self._smoothing), chosen, rejected)


class IPO(Preference):
    """Identity preference optimization (arXiv 2310.12036): margins a token near to ``1 / (2 beta)``.

    Of means over an answer's tokens, as its authors computed it.
    """

    def __init__(self, beta: float, reference: Reference) -> None:
        super().__init__(reference)
        self._beta = beta

    def judge(self, pairs: Pairs) -> Judged:
        chosen, rejected = pairs.chosen - pairs.base_chosen, pairs.rejected - pairs.base_rejected
        margins = chosen / pairs.chosen_tokens - rejected / pairs.rejected_tokens
        return Judged((margins - 1 / (2 * self._beta)) ** 2, self._beta * chosen, self._beta * rejected)


class SimPO(Preference):
    """Preference by the mean over an answer's tokens, at least ``gamma`` apart, without a base (arXiv 2405.14734)."""

    def __init__(self, beta: float, gamma: float, label_smoothing: float) -> None:
        super().__init__(None)
        self._beta, self._gamma, self._smoothing = beta, gamma, label_smoothing

    def judge(self, pairs: Pairs) -> Judged:
        chosen = self._beta * pairs.chosen / pairs.chosen_tokens
        rejected = self._beta * pairs.rejected / pairs.rejected_tokens
        return Judged(smoothed(chosen - rejected - self._gamma, self._smoothing), chosen, rejected)


class CPO(Preference):
    """DPO without a base, and ``alpha`` times the loss of what is chosen in its place (arXiv 2401.08417)."""

    def __init__(self, beta: float, alpha: float, label_smoothing: float) -> None:
        super().__init__(None)
        self._beta, self._alpha, self._smoothing = beta, alpha, label_smoothing

    def judge(self, pairs: Pairs) -> Judged:
        chosen, rejected = self._beta * pairs.chosen, self._beta * pairs.rejected
        own = -self._alpha * pairs.chosen / pairs.chosen_tokens
        return Judged(smoothed(chosen - rejected, self._smoothing) + own, chosen, rejected)


class ORPO(Preference):
    """The loss of what is chosen, and ``beta`` times that of the odds of both answers (arXiv 2403.07691).

    The paper's lambda is ``beta``, as TRL has it.
    """

    def __init__(self, beta: float) -> None:
        super().__init__(None)
        self._beta = beta

    def judge(self, pairs: Pairs) -> Judged:
        chosen, rejected = pairs.chosen / pairs.chosen_tokens, pairs.rejected / pairs.rejected_tokens
        odds = (chosen - _log1mexp(chosen)) - (rejected - _log1mexp(rejected))
        return Judged(self._beta * softplus(-odds) - chosen, self._beta * chosen, self._beta * rejected)


def _log1mexp(x: mx.array) -> mx.array:
    """``log(1 - exp(x))`` of x below 0; an answer that is certain has odds of ten millions, not infinite ones."""
    return mx.log(-mx.expm1(mx.minimum(x, _CERTAIN)))


def smoothed(margins: mx.array, smoothing: float) -> mx.array:
    """``-log sigmoid`` of margins (P,), with so large a chance that the answers were labelled the wrong way round."""
    losses = softplus(-margins)
    return (1 - smoothing) * losses + smoothing * softplus(margins) if smoothing else losses


def softplus(x: mx.array) -> mx.array:
    """``log(1 + exp(x))``, which is ``-log sigmoid(-x)``."""
    return mx.logaddexp(x, mx.array(0.0))
