"""Examples in batches: an endless order by seed that goes on exactly where it stopped, and nothing dropped.

Either rows of about one length stand together (little padding), or several examples share a row (packed: almost
none). In NumPy; the training step makes arrays of its backend of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from macllm.errors import InputError, OptionError
from macllm.tune.examples import Example
from macllm.tune.packing import first_fit_decreasing
from macllm.tune.split import permutation

Item = TypeVar("Item")
Row: TypeAlias = tuple[int, ...]  # indices of the examples that share a row
Plan: TypeAlias = tuple[tuple[Row, ...], ...]  # the batches of one pass

_WINDOW = 64  # batches that are sorted together: little padding, and still another order every time


@dataclass(frozen=True)
class Position:
    """Where an order stands, as plain numbers: the next batch is number ``index`` of pass ``epoch``, both from 0."""

    seed: int
    epoch: int = 0
    index: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of token ids, each array (B, L).

    ``learned`` is a mask of targets: ``learned[b, t]`` where ``ids[b, t]`` is predicted from what precedes it in
    its segment. ``segments`` count a row's examples from 1, 0 is padding; ``positions`` start anew in each.
    ``examples`` are those that are in it, ``labels`` and ``raw`` theirs, ``after`` is where the order stands after it.
    """

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]
    segments: NDArray[np.int32]
    positions: NDArray[np.int32]
    examples: tuple[int, ...]
    after: Position
    labels: tuple[bool | None, ...] = ()
    raw: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return int(np.count_nonzero(self.segments))

    @property
    def supervised(self) -> int:
        """Tokens that count in the loss."""
        return int(np.count_nonzero(self.learned))

    def rows(self, which: NDArray[np.intp]) -> Self:
        """The batch of these rows alone, in its width; what else it holds of each row goes with it."""
        owner = np.repeat(np.arange(len(self.ids)), self.segments.max(axis=1, initial=0))  # of each example
        inside = [index for row in which for index in np.flatnonzero(owner == row)]
        own = {
            field.name: getattr(self, field.name)[which]
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        return replace(
            self,
            **own,
            examples=tuple(self.examples[index] for index in inside),
            labels=tuple(self.labels[index] for index in inside) if self.labels else (),
            raw=tuple(self.raw[index] for index in inside) if self.raw else (),
        )


@dataclass(frozen=True)
class Batching:
    """How examples become batches of ``batch_size`` rows.

    ``pack`` fills rows of ``max_seq_length`` with several examples. Rows are as long as the batch's longest, up to
    a multiple of ``multiple``: few different shapes are few compilations. ``together`` consecutive examples (a
    preference row's two) always stand in one batch, each in a row of its own, and count as one row.
    """

    batch_size: int
    max_seq_length: int
    pack: bool = False
    multiple: int = 32
    together: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_seq_length", "multiple", "together"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}={getattr(self, name)} is not possible (expected at least 1)")
        if self.pack and self.together > 1:
            raise OptionError(
                "preference rows cannot be packed: both answers are compared; leave packing off"
            )

    def per_epoch(self, lengths: Sequence[int]) -> int:
        """Batches of one pass over examples of these lengths."""
        units = len(lengths) // self.together
        rows = len(first_fit_decreasing(lengths, self.max_seq_length)) if self.pack else units
        return -(-rows // self.batch_size)

    def shuffled(self, lengths: Sequence[int], seed: int, epoch: int) -> Plan:
        """The batches of pass ``epoch``: the same for the same arguments, every example once."""
        chance = np.random.PCG64([seed, epoch])
        if self.pack:
            order = permutation(chance, len(lengths))
            packed = first_fit_decreasing([lengths[index] for index in order], self.max_seq_length)
            rows = [tuple(order[index] for index in row) for row in packed]
            rows = [rows[index] for index in permutation(chance, len(rows))]
            return tuple(_chunks(rows, self.batch_size))
        longest = self._longest(lengths)
        units = permutation(chance, len(longest))
        batches: list[tuple[Row, ...]] = []
        for window in _chunks(units, self.batch_size * _WINDOW):
            by_length = sorted(window, key=longest.__getitem__)
            batches += (self._rows(part) for part in _chunks(by_length, self.batch_size))
        return tuple(batches[index] for index in permutation(chance, len(batches)))

    def in_order(self, lengths: Sequence[int]) -> Plan:
        """The batches of a pass without chance, from short to long: to evaluate with."""
        if self.pack:
            packed = first_fit_decreasing(lengths, self.max_seq_length)
            return tuple(_chunks([tuple(row) for row in packed], self.batch_size))
        longest = self._longest(lengths)
        units = sorted(range(len(longest)), key=longest.__getitem__)
        return tuple(self._rows(part) for part in _chunks(units, self.batch_size))

    def width(self, length: int) -> int:
        """Columns of a batch whose longest row has ``length`` tokens."""
        return min(-(-length // self.multiple) * self.multiple, max(length, self.max_seq_length))

    def _longest(self, lengths: Sequence[int]) -> list[int]:
        """The longest length of each group that stays together."""
        if len(lengths) % self.together:
            raise ValueError(f"{len(lengths)} examples are no groups of {self.together}")
        starts = range(0, len(lengths), self.together)
        return [max(lengths[start : start + self.together]) for start in starts]

    def _rows(self, units: Sequence[int]) -> tuple[Row, ...]:
        return tuple((self.together * unit + index,) for unit in units for index in range(self.together))


class Batches:
    """The endless order of batches over ``examples`` from ``position`` on; each knows where the next one is."""

    def __init__(self, examples: Sequence[Example], batching: Batching, position: Position) -> None:
        if not examples:
            raise ValueError("there are no examples to make batches of")
        self._examples = examples
        self._batching = batching
        self._lengths = [len(example) for example in examples]
        self._position = position

    def __iter__(self) -> Iterator[Batch]:
        position = self._position
        while True:
            plan = self._batching.shuffled(self._lengths, position.seed, position.epoch)
            if position.index >= len(plan):
                raise InputError(
                    f"the order of batches stands at {position.index} of a pass of {len(plan)}: it was saved with"
                    " other data or settings; start anew"
                )
            following = replace(position, epoch=position.epoch + 1, index=0)
            for index in range(position.index, len(plan)):
                last = index + 1 == len(plan)
                after = following if last else replace(position, index=index + 1)
                yield collate(self._examples, plan[index], self._batching.width, after)
            position = following

    def once(self) -> Iterator[Batch]:
        """Every example once, in the same order every time: to evaluate with."""
        for rows in self._batching.in_order(self._lengths):
            yield collate(self._examples, rows, self._batching.width, self._position)


def collate(
    examples: Sequence[Example], rows: Sequence[Row], width: Callable[[int], int], after: Position
) -> Batch:
    """The arrays of a batch: ``rows`` of examples, each row's one behind the other, then padding."""
    longest = max(sum(len(examples[index]) for index in row) for row in rows)
    shape = (len(rows), width(longest))
    ids, segments, positions = (np.zeros(shape, dtype=np.int32) for _ in range(3))  # (B, L)
    learned = np.zeros(shape, dtype=np.bool_)  # (B, L)
    for number, row in enumerate(rows):
        at = 0
        for segment, index in enumerate(row, start=1):
            example = examples[index]
            part = slice(at, at + len(example))
            ids[number, part], learned[number, part] = example.ids, example.learned
            segments[number, part] = segment
            positions[number, part] = np.arange(len(example))
            at = part.stop
    inside = tuple(index for row in rows for index in row)
    labels = tuple(examples[index].label for index in inside)
    raw = tuple(examples[index].raw for index in inside)
    return Batch(ids, learned, segments, positions, inside, after, labels, raw)


def _chunks(items: Sequence[Item], size: int) -> Iterator[tuple[Item, ...]]:
    return (tuple(items[start : start + size]) for start in range(0, len(items), size))
