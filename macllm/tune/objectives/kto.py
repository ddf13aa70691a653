"""Answers that are wanted or not, one at a time (Kahneman-Tversky optimization, arXiv 2402.01306).

An answer's reward counts from a reference point, how far the model is from its base at all: the mean, over a step,
of what it gained on answers to other prompts. Whose answer another prompt gets is fixed for a run, so that what the
base says of it is computed once, and neither the batches nor their order make a difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import ClassVar

import mlx.core as mx
import numpy as np

from macllm.nn.decoder import Decoder
from macllm.tune.batches import Batch, collate
from macllm.tune.examples import Example
from macllm.tune.log_probs import answer_log_probs
from macllm.tune.objective import Objective
from macllm.tune.objectives.reference import Reference, digest_of, digests_of


@dataclass(frozen=True, eq=False)
class Anchored(Batch):
    """A batch that knows its step's reference point, in nats."""

    point: float = 0.0


@dataclass(frozen=True)
class Weights:
    """What a wanted answer and one that is not count."""

    desirable: float
    undesirable: float


class KTO(Objective):
    """The value of answers, each of them counting one. Examples have labels."""

    packs: ClassVar[bool] = False

    def __init__(self, beta: float, weights: Weights, reference: Reference, max_seq_length: int) -> None:
        self._beta, self._weights = beta, weights
        self._reference = reference
        self._longest = max_seq_length
        self._others: dict[bytes, Example] = {}  # by an example's content, its prompt with another's answer

    def begin(self, model: Decoder, examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        """As :meth:`Objective.begin`: what the base says of each answer, and of another's to the same prompt."""
        unique = {digest_of(one.ids, one.learned): one for one in examples}
        self._others = {
            own: mismatched(unique[own], unique[other], self._longest) for own, other in _exchange(unique)
        }
        yield from self._reference.begin(model, [*unique.values(), *self._others.values()])

    def ready_step(self, model: Decoder, batches: Sequence[Batch], step: int) -> Sequence[Batch]:
        """The micro-batches with the reference point of all of them together."""
        gained = [self._gained(model, self._exchanged(batch), learns=False) for batch in batches]
        mean = float(np.concatenate([np.array(one, np.float64) for one in gained]).mean())
        return [Anchored(**vars(batch) | {"point": max(0.0, mean)}) for batch in batches]

    def ready(self, model: Decoder, batch: Batch, step: int | None) -> Batch:
        return self.ready_step(model, [batch], step or 0)[0]

    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        assert isinstance(batch, Anchored)  # ready says how far the model is from its base
        gained = self._gained(model, batch, checkpoint=checkpoint, learns=learns)
        wanted = mx.array(np.array(batch.labels, np.bool_))
        losses = kto_losses(self._beta, self._weights, gained, wanted, batch.point)
        return losses.sum(), losses.size

    def figures(self, model: Decoder, batch: Batch) -> Mapping[str, tuple[float, int]]:
        """TRL's figures: the rewards of wanted and of unwanted answers, and the reference point as ``kl``."""
        assert isinstance(batch, Anchored)
        rewards = self._beta * np.array(self._gained(model, batch, learns=False), np.float64)
        wanted = np.array(batch.labels, np.bool_)
        return {
            "rewards/chosen": (float(rewards[wanted].sum()), int(wanted.sum())),
            "rewards/rejected": (float(rewards[~wanted].sum()), int((~wanted).sum())),
            "kl": (batch.point * len(wanted), len(wanted)),
        }

    def _gained(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> mx.array:
        """How much more likely answers are than to the base, in nats (B,)."""
        found, _ = answer_log_probs(model, batch, checkpoint=checkpoint, learns=learns)
        return found - mx.array(self._reference.of(batch))

    def _exchanged(self, batch: Batch) -> Batch:
        """The batch's prompts with the answers of others."""
        examples = [self._others[digest] for digest in digests_of(batch)]
        rows = [(index,) for index in range(len(examples))]
        return collate(examples, rows, lambda length: max(length, batch.ids.shape[1]), batch.after)


def kto_losses(beta: float, weights: Weights, gained: mx.array, wanted: mx.array, point: float) -> mx.array:
    """The losses (B,) of answers that gained so much on the base (B,), in nats, and are wanted or not (B,)."""
    above = beta * (gained - point)
    values = mx.sigmoid(mx.where(wanted, above, -above))
    return mx.where(wanted, weights.desirable, weights.undesirable) * (1 - values)


def _exchange(examples: Mapping[bytes, Example]) -> Iterator[tuple[bytes, bytes]]:
    """Each example with one of the next prompt; where all have the same prompt, with itself."""
    groups: dict[bytes, list[bytes]] = {}
    for digest, example in examples.items():
        groups.setdefault(example.ids[: example.prompt].tobytes(), []).append(digest)
    members = list(groups.values())
    for group, following in zip(members, [*members[1:], *members[:1]], strict=True):
        yield from zip(group, cycle(following), strict=False)


def mismatched(example: Example, other: Example, longest: int) -> Example:
    """The prompt of one example with the answer of another, as far as there is room."""
    parts = (example.ids[: example.prompt], other.ids[other.prompt :])
    masks = (np.zeros(example.prompt, np.bool_), other.learned[other.prompt :])
    ids, learned = np.concatenate(parts)[:longest], np.concatenate(masks)[:longest]
    return replace(example, ids=ids, learned=learned)
