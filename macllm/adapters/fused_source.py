"""The weights of a model with what was learned in them, as a conversion reads them, and how well each change survives.

What did not change keeps its codes, row by row: only rows that did are quantized anew. A change that is the same for
all inputs of a group goes into affine biases, codes untouched.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import mlx.core as mx

from macllm.adapters.files import Adapter
from macllm.adapters.fold import fold, folds
from macllm.adapters.slot import Learned
from macllm.nn.adapted import Adapter as Merging
from macllm.nn.adapted import Factors, plain
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import Quantization
from macllm.weights.operations import Relation
from macllm.weights.refit import refit, refits
from macllm.weights.source import Source, rows_at_once


@dataclass
class Tally:
    """How the change of one written tensor compares with the one that was learned, added up part by part."""

    base: float = 0.0  # squared lengths
    wanted: float = 0.0
    real: float = 0.0
    product: float = 0.0

    def add(self, base: mx.array, wanted: mx.array, real: mx.array) -> None:
        """``base``, what was learned, and what it has become, all in float32 and of one shape."""
        learned, became = wanted - base, real - base
        self.base += _sum(base, base)
        self.wanted += _sum(learned, learned)
        self.real += _sum(became, became)
        self.product += _sum(learned, became)

    @property
    def cosine(self) -> float:
        """1 where nothing was learned, 0 where what was learned has gone."""
        if self.wanted == 0:
            return 1.0
        return self.product / math.sqrt(self.wanted * self.real) if self.real > 0 else 0.0

    @property
    def relative(self) -> float:
        """The length of the learned change beside that of the tensor."""
        return math.sqrt(self.wanted / self.base) if self.base > 0 else math.inf if self.wanted else 0.0


@dataclass(frozen=True)
class FusedSource(Source):
    """A model's files with something learned in them."""

    learned: Learned = field(kw_only=True)

    @cached_property
    def changed(self) -> frozenset[str]:
        """The canonical tensors that something was learned of."""
        content = self.learned.content
        if isinstance(content, Adapter):
            return frozenset(f"{name}.weight" for name in content.factors)
        return frozenset(content)

    def rows(self, target: Relation, packing: Quantization | None) -> Iterator[tuple[int, Stored]]:
        """As :meth:`Source.rows`, with what was learned."""
        if self.changed.isdisjoint(tensor.name for tensor in target.canonical):
            yield from super().rows(target, packing)
            return
        for start, part, _, _ in self._changed_rows(target, packing):
            yield start, part

    def several(self, target: Relation) -> list[mx.array]:
        """As :meth:`Source.several`, with what was learned."""
        name = target.canonical[0].name
        if name not in self.changed:
            return super().several(target)
        whole = Dense(self._cast(name, self._wanted(name, self._reader.read(name)), self.dtype_of(name)))
        return [one.array for one in target.store([whole]) if isinstance(one, Dense)]

    def tally(self, target: Relation, packing: Quantization | None) -> Tally:
        """How well the change of what ``target`` stores survives in ``packing``."""
        found = Tally()
        if len(target.stored) == 1:
            for _, part, base, wanted in self._changed_rows(target, packing):
                found.add(base, wanted, plain(part))
            return found
        stored = self._reader.read(target.canonical[0].name)
        wanted = self._wanted(target.canonical[0].name, stored)
        dtype = self.dtype_of(target.canonical[0].name)
        found.add(plain(stored), wanted, wanted.astype(dtype).astype(mx.float32))
        return found

    def identity(self) -> list[list[Any]]:
        """What tells these weights from others."""
        return [*super().identity(), ["adapter", self.learned.stamp, 0]]

    def _changed_rows(
        self, target: Relation, packing: Quantization | None
    ) -> Iterator[tuple[int, Stored, mx.array, mx.array]]:
        """Some rows at a time: the first one's number, what they become, what they were and were to be in float32."""
        original = self.read(target)
        each = {tensor.name: self._reader.read(tensor.name) for tensor in target.canonical}
        wanted = _dense(target, {name: self._wanted(name, base) for name, base in each.items()})
        folded = self._folded(target, each, packing)
        name = target.canonical[0].name
        mx.eval(wanted, *original.arrays())
        if not original.shape:  # a single number
            yield 0, self._formed(name, Dense(wanted), None), plain(original), wanted
            return
        step = rows_at_once(original.shape, packing)
        for start in range(0, original.shape[0], step):
            span = slice(start, start + step)
            old, want = original.rows(span), wanted[span]
            base = plain(old)
            new = self._formed(name, folded.rows(span) if folded is not None else Dense(want), packing)
            kept = self._formed(name, old, packing) if folded is None else None
            if isinstance(old, Packed) and isinstance(new, Packed) and isinstance(kept, Packed):
                new = _moved(old, want, base, new, kept)
            mx.eval(new.arrays())
            yield start, new, base, want

    def _folded(
        self, target: Relation, each: Mapping[str, Stored], packing: Quantization | None
    ) -> Stored | None:
        """The tensor with the change in its biases, where it all goes there and the packing stays."""
        factors = {name: self._factors(name) for name in each if name in self.changed}
        members = []
        for name, base in each.items():
            own = factors.get(name)
            if not isinstance(base, Packed) or base.quantization != packing:
                return None
            if own is not None and not folds(base, own):
                return None
            members.append(base if own is None else fold(base, own))
        stored = target.store(members)
        return stored[0] if isinstance(stored[0], Packed) and stored[0].quantization == packing else None

    def _wanted(self, name: str, base: Stored) -> mx.array:
        """What a tensor becomes, in float32."""
        if name not in self.changed:
            return plain(base)
        content = self.learned.content
        if not isinstance(content, Adapter):
            return content[name].astype(mx.float32).reshape(base.shape)
        return Merging(content.factors[name.removesuffix(".weight")]).merged(base)

    def _factors(self, name: str) -> Factors | None:
        content = self.learned.content
        return content.factors[name.removesuffix(".weight")] if isinstance(content, Adapter) else None


def _sum(a: mx.array, b: mx.array) -> float:
    found = (a * b).sum().item()
    assert isinstance(found, float)
    return found


def _dense(target: Relation, values: Mapping[str, mx.array]) -> mx.array:
    """What ``target`` stores of plain tensors."""
    (whole,) = target.store([Dense(values[tensor.name]) for tensor in target.canonical])
    assert isinstance(whole, Dense)
    return whole.array.astype(mx.float32)


def _moved(old: Packed, wanted: mx.array, base: mx.array, fresh: Packed, kept: Packed) -> Packed:
    """``fresh``, closer to what is wanted where the old grid allows it, with rows that did not change as they were."""
    if old.quantization != fresh.quantization:
        return fresh
    moved = mx.any(wanted != base, axis=-1, keepdims=True)
    if fresh.quantization.mode == "nf4":  # rows share scales of scales
        return fresh if moved.any().item() else kept
    found = refit(kept, wanted, fresh) if refits(kept) and refits(fresh) else fresh
    return _only_where(moved, found, kept)


def _only_where(moved: mx.array, new: Packed, old: Packed) -> Packed:
    """``new`` in the rows that ``moved`` (..., 1), else ``old``."""

    def chosen(ours: mx.array | None, theirs: mx.array | None) -> mx.array | None:
        return mx.where(moved, ours, theirs) if ours is not None and theirs is not None else None

    weight = chosen(new.weight, old.weight)
    assert weight is not None
    return replace(
        new, weight=weight, scales=chosen(new.scales, old.scales), biases=chosen(new.biases, old.biases)
    )
