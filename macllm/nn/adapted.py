"""Matrices with an adapter beside them: the base stays as it is stored, two thin factors learn a change of it.

LoRA (arXiv 2106.09685) adds ``scale * (x A) B`` to ``x W.T``; DoRA (arXiv 2402.09353) then gives each row of what
W has become a length of its own. QA-LoRA (arXiv 2309.14717) has the inputs of a quantization group summed before A,
and PiSSA (arXiv 2404.02948) starts at the largest part of W itself, which is taken off again. Every named part of a
stacked matrix has factors of its own, and the base may be packed in any way that it can be multiplied in: gradients go
through its input alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.beside import Around, Beside, restore
from macllm.nn.linear import AnyLinear, Embedding, Linear, PackedLinear, Part, RoundedLinear, SeparateLinear
from macllm.nn.stack import AnyStack, SeparateStack, Stack
from macllm.nn.stored import Packed, Stored

Base: TypeAlias = AnyLinear | AnyStack
Product: TypeAlias = Callable[[mx.array, mx.array, mx.array], mx.array]  # of rows and two factors
BASES = (Linear, PackedLinear, SeparateLinear, RoundedLinear, Stack, SeparateStack)
INSIDE_ONE = (
    Embedding,
    SeparateLinear,
    RoundedLinear,
    SeparateStack,
)  # what they hold is not adapted by itself


@dataclass(frozen=True)
class Factors:
    """The change ``scale * (a @ b).T`` of one matrix (O, I), or of each of a stack (N, O, I)."""

    a: mx.array  # (I, r), or (N, I, r); of groups (I / group, r)
    b: mx.array  # (r, O), or (N, r, O)
    scale: float
    magnitude: mx.array | None = None  # (O,), or (N, O): the length of each changed row (DoRA)
    group: int = 1  # neighbouring inputs that share a row of a (QA-LoRA)
    start: tuple[mx.array, mx.array] | None = None  # as a and b: their change is taken off again (PiSSA)

    @property
    def rank(self) -> int:
        return self.a.shape[-1]

    def whole(self) -> "Factors":
        """The same change by ``a`` and ``b`` alone, as files keep it: twice as wide with a ``start``."""
        a, b = self.a, self.b
        if self.start is not None:
            a = mx.concatenate([a, self.start[0]], axis=-1)
            b = mx.concatenate([b, -self.start[1]], axis=-2)
        return Factors(_repeated(a, self.group, -2), b, self.scale, self.magnitude)


class Adapter(Beside):
    """The factors of one matrix, under the names that mlx-lm gives them."""

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.scale = factors.scale
        self.lora_a = factors.a
        self.lora_b = factors.b
        if factors.magnitude is not None:
            self.m = factors.magnitude
        self._group = factors.group
        if factors.start is not None:
            self._start = factors.start
        self._known: tuple[mx.array, mx.array, mx.array] | None = None

    @property
    def factors(self) -> Factors:
        return Factors(self.lora_a, self.lora_b, self.scale, self.get("m"), self._group, self.get("_start"))

    def change(self, x: mx.array, product: Product) -> mx.array:
        """What the factors make of inputs (..., I), by ``product`` of both, not scaled: (..., O).

        With a start, products of equals are taken from each other: exactly zero as long as nothing has learned.
        """
        rows = x.astype(self["lora_a"].dtype)
        if self._group > 1:
            rows = rows.reshape(*rows.shape[:-1], -1, self._group).sum(axis=-1)
        z = product(rows, self["lora_a"], self["lora_b"])
        return z - product(rows, *self["_start"]) if "_start" in self else z

    def back(self, y: mx.array, product: Product) -> mx.array:
        """The same the other way, (..., O) to (..., I)."""
        rows = y.astype(self["lora_b"].dtype)
        z = product(rows, self["lora_b"].swapaxes(-1, -2), self["lora_a"].swapaxes(-1, -2))
        if "_start" in self:
            a, b = self["_start"]
            z = z - product(rows, b.swapaxes(-1, -2), a.swapaxes(-1, -2))
        return _repeated(z, self._group, -1)

    def merged(self, base: Stored) -> mx.array:
        """What the matrix (..., O, I) has become, in float32."""
        whole = self.factors.whole()
        changed = self._added(base, whole.a, whole.b)
        return changed if "m" not in self else (self.m / _nonzero(row_lengths(changed)))[..., None] * changed

    def stretch(self, base: Callable[[], Stored], only: int | None = None) -> mx.array:
        """What the rows of base and change together are multiplied by (..., O); their lengths have no gradient.

        ``only``: those of one matrix of a stack (O,). Out of training the lengths are kept until the factors are
        others.
        """
        a, b, m = self["lora_a"], self["lora_b"], self["m"]
        if self.training:
            matrix = base()
            if only is not None:
                a, b, m, matrix = a[only], b[only], m[only], matrix.rows(only)
            stretch: mx.array = m / _nonzero(mx.stop_gradient(row_lengths(self._added(matrix, a, b))))
            return stretch
        if self._known is None or self._known[0] is not a or self._known[1] is not b:
            self._known = (a, b, row_lengths(self._added(base(), a, b)))
        stretch = m / _nonzero(self._known[2])
        return stretch if only is None else stretch[only]

    def _added(self, base: Stored, a: mx.array, b: mx.array) -> mx.array:
        return plain(base) + self.scale * (a @ b).swapaxes(-1, -2)


class _Adapted(Around):
    """A layer and the adapters of those of its parts that have one. Made for use: ``train()`` lets dropout begin."""

    def __init__(self, base: Base, factors: Mapping[str, Factors], dropout: float) -> None:
        """``factors`` by the canonical name of a part; ``dropout``: the share of the adapters' input left out."""
        super().__init__()
        self.base = base
        self.parts = parts_of(base)
        self.adapters = {
            _last(part.name): Adapter(factors[part.name]) for part in self.parts if part.name in factors
        }
        self._ends = list(accumulate(part.width for part in self.parts))[:-1]
        self._kept = 1 - dropout
        self._key: mx.array | None = None
        self.eval()

    def named_adapters(self) -> Iterator[tuple[str, Adapter]]:
        """By canonical name."""
        for part in self.parts:
            if _last(part.name) in self.adapters:
                yield part.name, self.adapters[_last(part.name)]

    def _input(self, x: mx.array) -> mx.array:
        """What the adapters are given: in training some of it is left out, the rest made up for it."""
        if not self.training or self._kept == 1:
            return x
        kept = mx.random.bernoulli(self._kept, x.shape, key=self._key)
        return mx.where(kept, x / self._kept, mx.array(0, x.dtype))

    def _changed(
        self,
        y: mx.array,
        change: Callable[[Adapter], mx.array],
        beside: Callable[[mx.array], mx.array] = lambda rows: rows,
        only: int | None = None,
    ) -> mx.array:
        """The base's output (..., O) with what ``change`` makes of the input, part by part.

        ``beside`` lays what there is a row of a part, (O,) or (N, O), beside its outputs; ``only``: they are of one
        matrix of a stack.
        """
        pieces = mx.split(y, self["_ends"], axis=-1) if self["_ends"] else [y]
        changed = []
        for part, piece in zip(self["parts"], pieces, strict=True):
            adapter = self["adapters"].get(_last(part.name))
            changed.append(
                piece if adapter is None else self._one(part, adapter, piece, change, beside, only)
            )
        return changed[0] if len(changed) == 1 else mx.concatenate(changed, axis=-1)

    def _one(
        self,
        part: Part,
        adapter: Adapter,
        y: mx.array,
        change: Callable[[Adapter], mx.array],
        beside: Callable[[mx.array], mx.array],
        only: int | None,
    ) -> mx.array:
        z = adapter.scale * change(adapter)
        if "m" in adapter:
            stored = dict(self.base.tensors())
            rows = adapter.stretch(lambda: stored[f"{part.name}.weight"], only)
            stretch = beside(rows) if only is None else rows
            bias = stored.get(f"{part.name}.bias")
            own = y if bias is None else y - beside(plain(bias))
            z = stretch * z + (stretch - 1) * own  # a sum with y, so that a stretch of 1 leaves y as it is
        return y + z.astype(y.dtype)


class AdaptedLinear(_Adapted):
    """A matrix, or several with one input, with adapters."""

    base: AnyLinear

    def __call__(self, x: mx.array) -> mx.array:
        """(..., I) to (..., O)."""
        rows = self._input(x)
        return self._changed(self["base"](x), lambda one: one.change(rows, _product))


class AdaptedStack(_Adapted):
    """A stack of matrices with adapters, one a matrix."""

    base: AnyStack

    def gather(self, x: mx.array, index: mx.array, *, ordered: bool) -> mx.array:
        """As :meth:`macllm.nn.stack.Stack.gather`."""
        rows = self._input(x)

        def product(z: mx.array, *factors: mx.array) -> mx.array:
            for factor in factors:
                z = mx.gather_mm(z, factor, rhs_indices=index, sorted_indices=ordered)
            return z

        y = self["base"].gather(x, index, ordered=ordered)
        return self._changed(
            y, lambda one: one.change(rows, product), lambda by_matrix: by_matrix[index][..., None, :]
        )

    def alone(self, x: mx.array, index: int) -> mx.array:
        """As :meth:`macllm.nn.stack.Stack.alone`."""
        rows = self._input(x)
        return self._changed(
            self["base"].alone(x, index),
            lambda one: one.change(rows, lambda z, a, b: _product(z, a[index], b[index])),
            lambda by_matrix: by_matrix[index],
            index,
        )

    def each(self, x: mx.array, *, transposed: bool = True) -> mx.array:
        """As :meth:`macllm.nn.stack.Stack.each`."""
        base = self["base"]
        assert isinstance(base, Stack)  # one that is multiplied whole is one part
        if transposed:
            rows = self._input(x)
            return self._changed(
                base.each(x), lambda one: one.change(rows, _product), lambda by_matrix: by_matrix[:, None]
            )
        ((name, adapter),) = self.named_adapters()
        if "m" in adapter:
            stretch = adapter.stretch(lambda: dict(base.tensors())[f"{name}.weight"])
            x = x * stretch[:, None].astype(x.dtype)
        z = adapter.back(self._input(x), _product)
        y = base.each(x, transposed=False)
        return y + (adapter.scale * z).astype(y.dtype)


def adapt(model: Module, factors: Mapping[str, Factors], dropout: float = 0.0) -> None:
    """Puts adapters into a model, by the canonical names of their matrices, in place of any that it has."""
    restore(model)
    left = set(factors)
    for module in list(model.modules()):
        if isinstance(module, INSIDE_ONE):
            continue
        for key, layer in list(module.items()):
            if not isinstance(layer, BASES) or left.isdisjoint(part.name for part in parts_of(layer)):
                continue
            kind = AdaptedStack if isinstance(layer, Stack | SeparateStack) else AdaptedLinear
            module[key] = kind(layer, factors, dropout)
            left -= {part.name for part in parts_of(layer)}
    if left:
        raise ValueError(f"the model has no matrices {', '.join(sorted(left))}")


def adapters(model: Module) -> Iterator[tuple[str, Adapter]]:
    """The adapters of a model by the canonical names of their matrices."""
    for module in model.modules():
        if isinstance(module, _Adapted):
            yield from module.named_adapters()


def seed_dropout(model: Module, key: mx.array | None) -> None:
    """What the masks of every pass come from until the next call; None: MLX's own random state, new in each pass.

    A block whose pass is computed anew in the backward one needs the same masks in both.
    """
    found = [module for module in model.modules() if isinstance(module, _Adapted)]
    keys: Iterable[mx.array | None] = repeat(None) if key is None else mx.random.split(key, len(found))
    for module, own in zip(found, keys, strict=False):
        module._key = own


def parts_of(layer: Base) -> tuple[Part, ...]:
    """The named matrices of a layer, in the order of its outputs."""
    if isinstance(layer, RoundedLinear):
        return parts_of(layer.inner)
    if isinstance(layer, SeparateLinear | SeparateStack):
        return tuple(part for member in layer.members for part in parts_of(member))
    return layer.parts


def plain(stored: Stored) -> mx.array:
    """The values in float32."""
    return stored.dequantize(mx.float32) if isinstance(stored, Packed) else stored.array.astype(mx.float32)


def row_lengths(matrix: mx.array) -> mx.array:
    """The length of each row (..., O) of (..., O, I)."""
    return mx.linalg.norm(matrix, axis=-1)


def _product(rows: mx.array, a: mx.array, b: mx.array) -> mx.array:
    return (rows @ a) @ b


def _repeated(array: mx.array, count: int, axis: int) -> mx.array:
    return mx.repeat(array, count, axis=axis) if count > 1 else array


def _nonzero(lengths: mx.array) -> mx.array:
    return mx.where(lengths == 0, mx.array(1.0), lengths)  # a row of zeros has no direction


def _last(name: str) -> str:
    return name.rpartition(".")[2]
