"""The cache of a recurrence: a state of fixed size that goes back exactly.

A state cannot be undone, so the cache keeps checkpoints and, since the older of them, what each token fed into the
recurrence: going back is taking a checkpoint and running the recurrence, and nothing else of the model, over the
tokens that stay.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import mlx.core as mx

from macllm.spec.memory import REWIND_TOKENS

Inputs: TypeAlias = tuple[mx.array, ...]  # each (B, L, ...), what a token feeds into a recurrence
States: TypeAlias = tuple[mx.array, ...]
# inputs and the state before them (None: nothing was seen) to the outputs and the state after them
Recurrence: TypeAlias = Callable[[Inputs, States | None], tuple[mx.array, States]]


@dataclass(frozen=True)
class _Checkpoint:
    offset: int
    states: States | None


class StateCache:
    """One recurrent state with its way back of at least REWIND_TOKENS tokens."""

    def __init__(self, padding: mx.array | None = None) -> None:
        self.offset = 0
        self.padding = padding
        self._states: States | None = None
        self._checkpoints: list[_Checkpoint] = [_Checkpoint(0, None)]
        self._log: list[tuple[int, Inputs]] = []  # first offset of each piece
        self._stale = False  # the states are to be computed from a checkpoint

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        known = self._states or self._checkpoints[-1].states or ()
        return sum(int(array.nbytes) for array in known)

    @property
    def allocated_bytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays())

    def arrays(self) -> list[mx.array]:
        found = {id(array): array for states in self._all_states() for array in states}
        found |= {id(array): array for _, inputs in self._log for array in inputs}
        return list(found.values())

    def run(self, recurrence: Recurrence, inputs: Inputs) -> mx.array:
        """The recurrence over more tokens; returns its outputs (B, L, ...).

        Long inputs are taken in two pieces, so that a checkpoint lies not far before the end.
        """
        length = inputs[0].shape[1]
        if length <= REWIND_TOKENS:
            return self._advance(recurrence, inputs)
        cut = length - REWIND_TOKENS
        parts = [tuple(array[:, span] for array in inputs) for span in (slice(0, cut), slice(cut, None))]
        return mx.concatenate([self._advance(recurrence, part) for part in parts], axis=1)

    def rewindable(self) -> int:
        return self.offset - self._checkpoints[0].offset

    def rewind(self, tokens: int) -> None:
        if not 0 <= tokens <= self.rewindable():
            raise ValueError(f"cannot rewind {tokens} tokens of a state that holds {self.rewindable()}")
        if tokens == 0:
            return
        self.offset -= tokens
        self._checkpoints = [point for point in self._checkpoints if point.offset <= self.offset]
        kept = [(first, inputs) for first, inputs in self._log if first < self.offset]
        if kept:
            first, inputs = kept[-1]
            kept[-1] = first, tuple(array[:, : self.offset - first] for array in inputs)
        self._log = kept
        self._states, self._stale = None, True

    def copy(self) -> Self:
        twin = copy.copy(self)
        twin._checkpoints, twin._log = [*self._checkpoints], [*self._log]
        return twin

    def content(self) -> tuple[dict[str, mx.array], dict[str, int]]:
        arrays: dict[str, mx.array] = {}
        numbers = {"offset": self.offset, "stale": int(self._stale)}
        for index, state in enumerate(self._states or ()):
            arrays[f"state.{index}"] = state
        for number, point in enumerate(self._checkpoints):
            numbers[f"checkpoint.{number}"] = point.offset
            arrays |= {f"checkpoint.{number}.{i}": state for i, state in enumerate(point.states or ())}
        for number, (first, inputs) in enumerate(self._log):
            numbers[f"log.{number}"] = first
            arrays |= {f"log.{number}.{i}": array for i, array in enumerate(inputs)}
        return arrays, numbers

    def restore(self, arrays: dict[str, mx.array], numbers: dict[str, int]) -> None:
        self.offset, self._stale = numbers["offset"], bool(numbers["stale"])
        self._states = _numbered(arrays, "state") or None
        self._checkpoints = [
            _Checkpoint(numbers[key], _numbered(arrays, key) or None) for key in _keys(numbers, "checkpoint")
        ]
        self._log = [(numbers[key], _numbered(arrays, key)) for key in _keys(numbers, "log")]

    def _advance(self, recurrence: Recurrence, inputs: Inputs) -> mx.array:
        outputs, states = recurrence(inputs, self._current(recurrence))
        self._log.append((self.offset, inputs))
        self.offset += inputs[0].shape[1]
        self._states = states
        if self.offset - self._checkpoints[-1].offset >= REWIND_TOKENS:
            self._checkpoints.append(_Checkpoint(self.offset, states))
        while len(self._checkpoints) > 1 and self._checkpoints[1].offset <= self.offset - REWIND_TOKENS:
            del self._checkpoints[0]
        start = self._checkpoints[0].offset
        self._log = [(first, piece) for first, piece in self._log if first >= start]
        return outputs

    def _current(self, recurrence: Recurrence) -> States | None:
        if self._stale:
            point = self._checkpoints[-1]
            pieces = [inputs for first, inputs in self._log if first >= point.offset]
            self._states = point.states
            if pieces:
                joined = tuple(mx.concatenate(parts, axis=1) for parts in zip(*pieces, strict=True))
                _, self._states = recurrence(joined, point.states)
            self._stale = False
        return self._states

    def _all_states(self) -> Sequence[States]:
        points = [point.states for point in self._checkpoints if point.states is not None]
        return [*points, *([self._states] if self._states is not None else [])]


def run(recurrence: Recurrence, inputs: Inputs, caches: Sequence[StateCache]) -> mx.array:
    """A block's recurrence over its inputs, from its cache's state where it has one."""
    return caches[0].run(recurrence, inputs) if caches else recurrence(inputs, None)[0]


def _keys(numbers: dict[str, int], kind: str) -> list[str]:
    return sorted((key for key in numbers if key.startswith(f"{kind}.")), key=lambda key: int(key.split(".")[1]))


def _numbered(arrays: dict[str, mx.array], kind: str) -> tuple[mx.array, ...]:
    found = []
    while f"{kind}.{len(found)}" in arrays:
        found.append(arrays[f"{kind}.{len(found)}"])
    return tuple(found)
