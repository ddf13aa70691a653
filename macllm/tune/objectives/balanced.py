"""Any objective, and beside it a loss that keeps the experts of a mixture equally busy."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import mlx.core as mx

from macllm.nn.balancing import balancing_loss, expert_blocks, router_logits
from macllm.nn.decoder import Decoder
from macllm.tune.batches import Batch
from macllm.tune.examples import Example
from macllm.tune.memory import Beside
from macllm.tune.objective import Objective
from macllm.tune.trained import number


class Balanced(Objective):
    """An objective whose mean over a batch is ``weight`` times the batch's balancing loss higher.

    Which experts are busy is a figure of a batch, as in Hugging Face's models; of a step it is the mean over its
    micro-batches. Padding has no part in it. Where nothing learns, the loss is the objective's alone.
    """

    def __init__(self, inner: Objective, weight: float) -> None:
        self._inner, self._weight = inner, weight
        self.together, self.packs = inner.together, inner.packs  # type: ignore[misc]  # of this one alone
        self.watched = inner.watched  # type: ignore[misc]

    def beside(self) -> Beside | None:
        return self._inner.beside()

    def begin(self, model: Decoder, examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        return self._inner.begin(model, examples)

    def equip(self, model: Decoder) -> None:
        self._inner.equip(model)

    def save(self, model: Decoder, folder: Path) -> None:
        self._inner.save(model, folder)

    def refuses(self, example: Example) -> str | None:
        return self._inner.refuses(example)

    def ready(self, model: Decoder, batch: Batch, step: int | None) -> Batch:
        return self._inner.ready(model, batch, step)

    def told(self, batch: Batch) -> Mapping[str, tuple[float, int]]:
        return self._inner.told(batch)

    def ready_step(self, model: Decoder, batches: Sequence[Batch], step: int) -> Sequence[Batch]:
        return self._inner.ready_step(model, batches, step)

    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        if not learns:
            return self._inner.loss(model, batch, learns=False)
        with router_logits(model) as logits:
            total, count = self._inner.loss(model, batch, checkpoint=checkpoint)
        return total + self._weight * count * self._uneven(model, batch, logits), count

    def figures(self, model: Decoder, batch: Batch) -> Mapping[str, tuple[float, int]]:
        """The objective's, and the balancing loss by TRL's name."""
        with router_logits(model) as logits:
            count = self._inner.loss(model, batch, learns=False)[1]
        if not logits:  # one that is validated by something else than a loss of the model
            return self._inner.figures(model, batch)
        found = {"aux_loss": (number(self._uneven(model, batch, logits)) * count, count)}
        return {**self._inner.figures(model, batch), **found}

    def _uneven(self, model: Decoder, batch: Batch, logits: Sequence[mx.array]) -> mx.array:
        """The balancing loss of a batch whose routers gave ``logits`` (B, L, E)."""
        valid = batch.segments > 0
        if (
            logits[0].shape[1] < valid.shape[1]
        ):  # the last token of a row was no input, so that of no example counts
            valid = valid[:, :-1] & (batch.segments[:, 1:] == batch.segments[:, :-1])
        return balancing_loss(logits, expert_blocks(model)[0].spec.top_k, mx.array(valid))
