"""What a run minimizes, behind one interface: the loop knows batches, a summed loss and a count, and nothing more."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import mlx.core as mx

from macllm.nn.decoder import Decoder
from macllm.tune.batches import Batch
from macllm.tune.examples import Example
from macllm.tune.memory import Beside
from macllm.tune.sft import sft_loss


class Objective(ABC):
    """A loss that adds up: of a step it is the sum over its micro-batches, divided by the sum of their counts."""

    together: ClassVar[int] = 1  # consecutive examples that make one row
    packs: ClassVar[bool] = True  # whether several examples may share a row of a batch
    watched: ClassVar[bool] = True  # whether a loss far above those before says that a run has gone astray

    def refuses(self, example: Example) -> str | None:
        """Why it cannot learn from an example, in one sentence; None: it can. Asked before any model is loaded."""
        return None

    def beside(self) -> Beside | None:
        """The model that is in memory beside the one that learns, if there is one."""
        return None

    def begin(self, model: Decoder, examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        """Finds out what has to be known of all examples that batches will be made of, before a run or its rest.

        The model is the base as it was loaded: nothing is attached to it, nothing learned. Yields how many it has
        looked at, of how many; what it found out is known once it is exhausted.
        """
        return iter(())

    def equip(self, model: Decoder) -> None:  # noqa: B027 - most objectives need nothing
        """Adds to a model that a method is attached to what learns beside it."""

    def save(self, model: Decoder, folder: Path) -> None:  # noqa: B027
        """Writes what :meth:`equip` added and the model learned since. Raises MacllmError where it cannot."""

    def ready(self, model: Decoder, batch: Batch, step: int | None) -> Batch:
        """The batch with what has to be known of it before gradients are asked for; by chance of ``step`` alone.

        ``step`` is None where the batch is not learned but validated with.
        """
        return batch

    def told(self, batch: Batch) -> Mapping[str, tuple[float, int]]:
        """What there is to say about a batch that is :meth:`ready` to be learned: sums and counts by name."""
        return {}

    def ready_step(self, model: Decoder, batches: Sequence[Batch], step: int) -> Sequence[Batch]:
        """The micro-batches of a step, each :meth:`ready`; for what has to be known of all of them together."""
        return [self.ready(model, batch, step) for batch in batches]

    @abstractmethod
    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        """The sum, float32, and the count, of a batch that is :meth:`ready`.

        ``checkpoint`` as in :func:`macllm.tune.forward.hidden`, ``learns`` as in
        :func:`macllm.tune.loss.token_losses`.
        """

    def figures(self, model: Decoder, batch: Batch) -> Mapping[str, tuple[float, int]]:
        """What else there is to say about a batch that is validated with: sums and counts by name."""
        return {}


class SupervisedTokens(Objective):
    """The cross-entropy of the tokens that are learned."""

    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        return sft_loss(model, batch.ids, batch.learned, batch.segments, checkpoint=checkpoint, learns=learns)
