"""A pass over packed rows: several documents one after the other, each as if it were alone in its row.

Documents are contiguous runs, so no mask of all tokens by all tokens is needed: positions begin anew with every run,
and attention is computed run by run (:meth:`macllm.nn.attend.Attend`). For training: there are no caches.
"""

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import numpy as np

from macllm.nn.step import Step


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of one document, or of padding (``step`` None); ``step`` is a pass over them alone."""

    length: int
    step: Step | None


class PackedStep(Step):
    """Rows of documents. ``segments`` (B, L) changes from one document to the next and is 0 for padding."""

    def __init__(self, segments: np.ndarray) -> None:
        super().__init__(segments.shape[1])
        self.rows = segments.shape[0]
        starts = _starts(segments)
        ends = [*starts, segments.size]
        lengths = [stop - start for start, stop in pairwise(ends)]
        alone = {length: Step(length) for length in lengths}  # those of a length share their masks
        for one in alone.values():
            one.recomputes = True
        of_document = segments.reshape(-1)[starts] > 0
        self.runs = tuple(
            Run(length, alone[length] if real else None)
            for length, real in zip(lengths, of_document, strict=True)
        )
        self._ends = tuple(ends[1:-1])
        within = np.arange(segments.size) - np.repeat(starts, lengths)
        self.position = mx.array(within.reshape(segments.shape).astype(np.int32))  # (B, L), each token's own
        self._real = mx.array(segments > 0)

    @property
    def positions(self) -> mx.array:
        """The position of each token in its document (B, L)."""
        assert isinstance(self.position, mx.array)
        return self.position

    @property
    def valid(self) -> mx.array:
        """Booleans (B, L), True for tokens that are no padding."""
        return self._real

    def apart(self, x: mx.array) -> list[mx.array]:
        """Of (B, H, L, d), what belongs to each run: (1, H, n, d)."""
        heads, width = x.shape[1], x.shape[3]
        whole = x.swapaxes(0, 1).reshape(1, heads, -1, width)  # (1, H, B L, d)
        # one split, whose gradient is one concatenation: of slices it would be a sum of as many whole arrays
        return whole.split(self._ends, axis=2) if self._ends else [whole]

    def together(self, parts: list[mx.array]) -> mx.array:
        """(B, H, L, d) again of what :meth:`apart` gave."""
        whole = mx.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
        return whole.reshape(whole.shape[1], self.rows, self.length, -1).swapaxes(0, 1)


def _starts(segments: np.ndarray) -> list[int]:
    """Where runs begin, in all rows one after the other; none reaches into the next row."""
    changes = np.ones(segments.shape, bool)
    changes[:, 1:] = segments[:, 1:] != segments[:, :-1]
    found: list[int] = np.flatnonzero(changes).tolist()
    return found
