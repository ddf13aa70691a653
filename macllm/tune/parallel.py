"""Several processes, on one machine or more, that make each step together: every one takes its share of the rows.

Started by ``mlx.launch``. All of them read the same rows and make the same update of the same sums, so that nothing
but sums is sent; the first alone writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from macllm.tune.batches import Batch
from macllm.tune.trained import number


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "World":
        """As this process was started."""
        group = mx.distributed.init()
        return cls(group.rank(), group.size())

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, batch: Batch, together: int) -> Batch | None:
        """This process's rows of a batch, ``together`` of which belong together; None where none are left for it."""
        if self.size == 1:
            return batch
        units = np.arange(len(batch.ids) // together)[self.rank :: self.size]
        rows = (units[:, None] * together + np.arange(together)).reshape(-1)
        return batch.rows(rows) if len(rows) else None

    def summed(
        self, total: float, count: int, gradients: dict[str, mx.array], learns: Mapping[str, mx.array]
    ) -> tuple[float, int, dict[str, mx.array]]:
        """The sums over all processes of a loss, its count, and its gradients by the names of what ``learns``.

        A process that had no rows gives no gradients.
        """
        if self.size == 1:
            return total, count, gradients
        found: dict[str, mx.array] = {}
        for name, parameter in learns.items():
            own = gradients[name] if name in gradients else mx.zeros(parameter.shape)
            found[name] = mx.distributed.all_sum(own)
            mx.eval(found[name])  # one after the other: every process has to send in the same order
        total, counted = self.numbers(total, count)
        return total, round(counted), found

    def numbers(self, *values: float) -> list[float]:
        """The sums over all processes of each of the values."""
        if self.size == 1:
            return list(values)
        return [number(one) for one in mx.distributed.all_sum(mx.array(values, mx.float32))]

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        return self.numbers(float(flag))[0] > 0


ALONE = World()
