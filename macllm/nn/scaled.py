"""Matrices whose outputs or inputs are multiplied by learned numbers, one each (IA3, arXiv 2205.05638).

The base may be packed in any way. Of experts each has numbers of its own.
"""

from collections.abc import Iterable, Mapping

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.adapted import BASES, INSIDE_ONE, Base, parts_of
from macllm.nn.beside import Around, Beside
from macllm.nn.linear import AnyLinear
from macllm.nn.stack import AnyStack, SeparateStack, Stack


class Scaling(Beside):
    """The numbers of one matrix under PEFT's name: of its inputs (I,) or outputs (O,), for a stack (N, I) or (N, O)."""

    def __init__(self, place: str, numbers: mx.array) -> None:
        super().__init__(place)
        self.ia3_l = numbers


class _Scaled(Around):
    def __init__(self, base: Base, numbers: Mapping[str, mx.array], inputs: bool) -> None:
        """``numbers`` by the canonical name of a part; those of ``inputs`` are of a layer that is one part."""
        super().__init__()
        self.base = base
        self.parts = parts_of(base)
        self.inputs = inputs
        self.scalings = {
            part.name.rpartition(".")[2]: Scaling(part.name, numbers[part.name])
            for part in self.parts
            if part.name in numbers
        }

    def _numbers(self, dtype: mx.Dtype, only: int | None = None) -> mx.array:
        """Of all inputs, or of all outputs side by side; ``only``: of one matrix of a stack."""
        pieces = []
        known = next(iter(self["scalings"].values()))["ia3_l"]
        for part in self["parts"]:
            scaling = self["scalings"].get(part.name.rpartition(".")[2])
            one = mx.ones((*known.shape[:-1], part.width)) if scaling is None else scaling["ia3_l"]
            pieces.append(one if only is None else one[only])
        whole = mx.concatenate(pieces, axis=-1) if len(pieces) > 1 else pieces[0]
        return whole.astype(dtype)


class ScaledLinear(_Scaled):
    """A matrix, or several with one input."""

    base: AnyLinear

    def __call__(self, x: mx.array) -> mx.array:
        """(..., I) to (..., O)."""
        if self.inputs:
            return self["base"](x * self._numbers(x.dtype))  # type: ignore[no-any-return]
        y: mx.array = self["base"](x)
        return y * self._numbers(y.dtype)


class ScaledStack(_Scaled):
    """A stack of matrices."""

    base: AnyStack

    def gather(self, x: mx.array, index: mx.array, *, ordered: bool) -> mx.array:
        """As :meth:`macllm.nn.stack.Stack.gather`."""
        numbers = self._numbers(x.dtype)[index][..., None, :]
        if self.inputs:
            return self["base"].gather(x * numbers, index, ordered=ordered)  # type: ignore[no-any-return]
        y: mx.array = self["base"].gather(x, index, ordered=ordered)
        return y * numbers

    def alone(self, x: mx.array, index: int) -> mx.array:
        """As :meth:`macllm.nn.stack.Stack.alone`."""
        numbers = self._numbers(x.dtype, index)
        if self.inputs:
            return self["base"].alone(x * numbers, index)  # type: ignore[no-any-return]
        y: mx.array = self["base"].alone(x, index)
        return y * numbers

    def each(self, x: mx.array, *, transposed: bool = True) -> mx.array:
        """As :meth:`macllm.nn.stack.Stack.each`."""
        numbers = self._numbers(x.dtype)[:, None]
        before = self.inputs == transposed
        y: mx.array = self["base"].each(x * numbers if before else x, transposed=transposed)
        return y if before else y * numbers


def scale(model: Module, numbers: Mapping[str, mx.array], of_inputs: Iterable[str]) -> None:
    """Puts numbers beside matrices, by their canonical names; ``of_inputs`` are those whose inputs they multiply."""
    inputs = set(of_inputs)
    for module in list(model.modules()):
        if isinstance(module, INSIDE_ONE):
            continue
        for key, layer in list(module.items()):
            if not isinstance(layer, BASES):
                continue
            names = {part.name for part in parts_of(layer)} & numbers.keys()
            if names:
                kind = ScaledStack if isinstance(layer, Stack | SeparateStack) else ScaledLinear
                module[key] = kind(layer, numbers, not inputs.isdisjoint(names))
