"""The cache of a recurrence: a state of fixed size that goes back exactly.

A state cannot be undone, so the cache keeps a few checkpoints of it and, since the oldest of them, what each token
fed into the recurrence: going back is taking a checkpoint and running the recurrence, and nothing else of the
model, over the tokens that stay.

Checkpoints are taken where tokens are appended: at least REWIND_TOKENS apart, and one where the last tokens began,
so that a few drafted tokens, most of which are dropped again, cost no more than those that stay.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, TypeAlias

import mlx.core as mx

from macllm.spec.memory import REWIND_TOKENS

Inputs: TypeAlias = tuple[mx.array, ...]  # each (B, L, ...), what a token feeds into a recurrence
States: TypeAlias = tuple[mx.array, ...]
# inputs and the state before them (None: nothing was seen) to the outputs and the state after them
Recurrence: TypeAlias = Callable[[Inputs, States | None], tuple[mx.array, States]]


class _Checkpoint(NamedTuple):
    """The state before the token at ``offset``."""

    offset: int
    states: States | None


class _Piece(NamedTuple):
    """Inputs of the tokens from ``start`` to ``end``."""

    start: int
    end: int
    inputs: Inputs

    def between(self, start: int, end: int) -> Inputs:
        """Those of its tokens that lie there."""
        if start <= self.start and self.end <= end:
            return self.inputs
        span = slice(max(start - self.start, 0), end - self.start)
        return tuple(array[:, span] for array in self.inputs)


class StateCache:
    """One recurrent state with its way back of at least REWIND_TOKENS tokens."""

    def __init__(self, padding: mx.array | None = None) -> None:
        self.offset = 0
        self.padding = padding
        self._states: States | None = (
            None  # None: nothing was seen, or to be computed from the last checkpoint
        )
        self._checkpoints: list[_Checkpoint] = []
        self._log: list[_Piece] = []
        self._state_bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._state_bytes if self.offset else 0

    @property
    def allocated_bytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays())

    def arrays(self) -> list[mx.array]:
        held = [point.states for point in self._checkpoints] + [self._states]
        groups = [*(states for states in held if states is not None), *(piece.inputs for piece in self._log)]
        return list({id(array): array for group in groups for array in group}.values())

    def run(self, recurrence: Recurrence, inputs: Inputs) -> mx.array:
        """The recurrence over more tokens; returns its outputs (B, L, ...).

        Long inputs are taken in two pieces, so that a checkpoint lies not far before the end.
        """
        cut = inputs[0].shape[1] - REWIND_TOKENS
        if cut <= 0:
            return self._advance(recurrence, inputs)
        before = self._advance(recurrence, tuple(array[:, :cut] for array in inputs))
        # copies, for they stay in the log: views would hold all the inputs in memory
        last = self._advance(recurrence, tuple(mx.contiguous(array[:, cut:]) for array in inputs))
        return mx.concatenate([before, last], axis=1)

    def rewindable(self) -> int:
        return self.offset - self._checkpoints[0].offset if self._checkpoints else 0

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} tokens of a state that holds {self.rewindable()}")
        if tokens == 0:
            return
        end = self.offset = self.offset - tokens
        self._checkpoints = [point for point in self._checkpoints if point.offset <= end]
        self._log = [
            _Piece(piece.start, min(piece.end, end), piece.between(piece.start, end))
            for piece in self._log
            if piece.start < end
        ]
        self._states = None

    def copy(self) -> Self:
        twin = copy.copy(self)
        twin._checkpoints, twin._log = [*self._checkpoints], [*self._log]
        return twin

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        arrays: dict[str, mx.array] = _numbered("state", self._states)
        numbers = {"offset": self.offset, "state_bytes": self._state_bytes}
        for number, point in enumerate(self._checkpoints):
            numbers[f"checkpoint.{number}"] = point.offset
            arrays |= _numbered(f"checkpoint.{number}", point.states)
        if self._log:
            arrays |= _numbered("log", self._since(self._checkpoints[0].offset))
        return arrays, numbers

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        self.offset, self._state_bytes = numbers["offset"], numbers["state_bytes"]
        self._states = _collected("state", arrays)
        points = sum(key.startswith("checkpoint.") for key in numbers)
        self._checkpoints = [
            _Checkpoint(numbers[key], _collected(key, arrays))
            for key in (f"checkpoint.{number}" for number in range(points))
        ]
        logged = _collected("log", arrays)
        start = self._checkpoints[0].offset if self._checkpoints else 0
        self._log = [_Piece(start, self.offset, logged)] if logged is not None else []

    def _advance(self, recurrence: Recurrence, inputs: Inputs) -> mx.array:
        states = self._states if self._states is not None else self._replayed(recurrence)
        outputs, self._states = recurrence(inputs, states)
        self._mark(states)
        start, self.offset = self.offset, self.offset + inputs[0].shape[1]
        self._log.append(_Piece(start, self.offset, inputs))
        if not self._state_bytes:
            self._state_bytes = sum(int(array.nbytes) for array in self._states)
        self._forget()
        return outputs

    def _replayed(self, recurrence: Recurrence) -> States | None:
        """The state before the next token, computed from the last checkpoint."""
        if not self._checkpoints:
            return None
        offset, states = self._checkpoints[-1]
        return states if offset == self.offset else recurrence(self._since(offset), states)[1]

    def _mark(self, states: States | None) -> None:
        """Takes a checkpoint here, instead of the last one where that is close to the one before it."""
        points = self._checkpoints
        if points and points[-1].offset == self.offset:
            return
        if len(points) > 1 and points[-1].offset - points[-2].offset < REWIND_TOKENS:
            points.pop()
        points.append(_Checkpoint(self.offset, states))

    def _forget(self) -> None:
        """Drops what lies before the last checkpoint that is REWIND_TOKENS back."""
        points, furthest = self._checkpoints, self.offset - REWIND_TOKENS
        if len(points) < 2 or points[1].offset > furthest:
            return
        while len(points) > 1 and points[1].offset <= furthest:
            del points[0]
        self._log = [piece for piece in self._log if piece.end > points[0].offset]

    def _since(self, start: int) -> Inputs:
        """All that was fed in from the token at ``start`` on."""
        pieces = [piece.between(start, self.offset) for piece in self._log if piece.end > start]
        return tuple(mx.concatenate(list(parts), axis=1) for parts in zip(*pieces, strict=True))


def run(recurrence: Recurrence, inputs: Inputs, caches: Sequence[StateCache]) -> mx.array:
    """A block's recurrence over its inputs, from its cache's state where it has one."""
    return caches[0].run(recurrence, inputs) if caches else recurrence(inputs, None)[0]


def _numbered(kind: str, arrays: Sequence[mx.array] | None) -> dict[str, mx.array]:
    return {f"{kind}.{number}": array for number, array in enumerate(arrays or ())}


def _collected(kind: str, arrays: dict[str, mx.array]) -> tuple[mx.array, ...] | None:
    """The arrays that :func:`_numbered` named so; None where there are none."""
    found: list[mx.array] = []
    while f"{kind}.{len(found)}" in arrays:
        found.append(arrays[f"{kind}.{len(found)}"])
    return tuple(found) or None
