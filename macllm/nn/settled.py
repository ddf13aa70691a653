"""Adapters in a model that only answers: two thin products a layer, whatever its parts and their methods.

A token costs as much in launches as in arithmetic, so the factors of all parts of a layer stand side by side, scale
and stretched lengths folded in. :class:`macllm.nn.adapted.AdaptedLinear`, which can also learn, is the slow twin.
"""

from collections.abc import Mapping, Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.adapted import AdaptedLinear, AdaptedStack, Adapter, parts_of, plain
from macllm.nn.beside import Around
from macllm.nn.linear import Part
from macllm.nn.stored import Stored


class SettledLinear(Around):
    """A matrix, or several with one input, with adapters that do not change any more."""

    def __init__(self, adapted: AdaptedLinear, dtype: mx.Dtype) -> None:
        """``dtype``: the type that the model computes in."""
        super().__init__()
        self.base = adapted.base
        found = dict(adapted.named_adapters())
        whole = {name: adapter.factors.whole() for name, adapter in found.items()}
        a = mx.concatenate([one.a for one in whole.values()], axis=-1)  # (I, R)
        rank, start = a.shape[-1], 0
        blocks: list[mx.array] = []
        stretches: list[mx.array] = []
        stretched = any("m" in adapter for adapter in found.values())
        stored = dict(self.base.tensors()) if stretched else {}
        for part in parts_of(self.base):
            adapter = found.get(part.name)
            if adapter is None:
                blocks.append(mx.zeros((rank, part.width)))
                stretches.append(mx.ones(part.width))
                continue
            stretch = _stretch(adapter, part, stored)
            factors = whole[part.name]
            end = start + factors.rank
            block = factors.scale * factors.b * stretch  # (r, width)
            blocks.append(mx.pad(block, [(start, rank - end), (0, 0)]))
            stretches.append(stretch)
            start = end
        self._a = a.astype(dtype)
        self._b = mx.concatenate(blocks, axis=-1).astype(dtype)  # (R, O)
        self._stretch: mx.array | None = None
        self._shift: mx.array | None = None
        if stretched:
            self._stretch = mx.concatenate(stretches).astype(dtype)
            self._shift = self._shifted(stored, stretches, dtype)
        mx.eval([one for one in (self._a, self._b, self._stretch, self._shift) if one is not None])
        self.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        """(..., I) to (..., O)."""
        y = self["base"](x)
        if self._stretch is not None:
            y = y * self._stretch
        if self._shift is not None:
            y = y + self._shift
        return mx.addmm(y, x @ self._a, self._b)

    def _shifted(
        self, stored: Mapping[str, Stored], stretches: Sequence[mx.array], dtype: mx.Dtype
    ) -> mx.array | None:
        """What makes up for a bias that was stretched with its row (O,)."""
        parts = parts_of(self.base)
        biases = [stored.get(f"{part.name}.bias") for part in parts]
        if all(bias is None for bias in biases):
            return None
        shifts = [
            mx.zeros(part.width) if bias is None else (1 - stretch) * plain(bias)
            for part, bias, stretch in zip(parts, biases, stretches, strict=True)
        ]
        return mx.concatenate(shifts).astype(dtype)


def settle(model: Module, dtype: mx.Dtype) -> None:
    """Makes the adapters of a model fast, in the type that it computes in; they cannot learn any more."""
    for module in list(model.modules()):
        for key, layer in list(module.items()):
            if isinstance(layer, AdaptedLinear):
                module[key] = SettledLinear(layer, dtype)
            elif isinstance(layer, AdaptedStack):
                for _, adapter in layer.named_adapters():
                    adapter.lora_a = adapter.lora_a.astype(dtype)
                    adapter.lora_b = adapter.lora_b.astype(dtype)


def _stretch(adapter: Adapter, part: Part, stored: Mapping[str, Stored]) -> mx.array:
    """What the rows of one part are multiplied by (width,); ones without DoRA."""
    if "m" not in adapter:
        return mx.ones(part.width)
    return adapter.stretch(lambda: stored[f"{part.name}.weight"])
