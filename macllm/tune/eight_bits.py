"""An optimizer's averages in 8 bits: blocks of 256 values with a scale each, computed with in float32.

After "8-bit Optimizers via Block-wise Quantization" (arXiv 2110.02861), with fourth roots in place of its table of
codes, since averages span many orders of magnitude. Rounded by chance: an average moves by a thousandth of itself a
step, and rounded to the nearest code it would stand still. The chance follows from the number of the step, so a resumed
run has the same.
"""

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from macllm.tune.peak import BLOCK, PART

LEAST = 4096  # values; averages of fewer stay in float32, as in the paper's implementation
_SCALES = "_scales"
_SIGNED_CODES, _POSITIVE_CODES = 127, 255


class EightBits:
    """An optimizer of MLX whose averages are kept packed between its steps."""

    def __init__(self, inner: Any, positive: frozenset[str], whole: bool) -> None:
        """``positive``: names of the averages that are never below zero. ``whole``: the values of a parameter depend on
        each other.
        """
        self._inner = inner
        self._positive, self._whole = positive, whole
        self.state: dict[str, Any] = {"step": mx.array(0, mx.uint64)}
        self.learning_rate = 0.0

    @property
    def step(self) -> mx.array:
        step: mx.array = self.state["step"]
        return step

    def init(self, parameters: Mapping[str, mx.array]) -> None:
        for name, parameter in parameters.items():
            averages: dict[str, mx.array] = {}
            self._inner.init_single(parameter, averages)
            self.state[name] = self._packed(averages, None, wide=parameter.size < LEAST)
            mx.eval(self.state[name])

    def moved(
        self, gradients: dict[str, mx.array], parameters: Mapping[str, mx.array], divisor: mx.array
    ) -> dict[str, mx.array]:
        """The parameters one step further along ``gradients / divisor``, one after the other.

        So the averages of one alone are unpacked at a time, and of one that is moved value by value those of a few
        million values. ``gradients`` is emptied on the way.
        """
        self.state["step"] = self.step + 1
        number = int(np.array(self.step))
        self._inner.state["step"], self._inner.learning_rate = self.step, self.learning_rate
        found = {}
        for index, (name, parameter) in enumerate(parameters.items()):
            key, gradient = mx.random.key((number << 20) + index), gradients.pop(name)
            if parameter.size > PART and not self._whole:
                found[name] = self._by_parts(name, gradient, parameter, divisor, key)
                continue
            moved, self.state[name] = self._one(gradient / divisor, parameter, self.state[name], key)
            found[name] = moved
            del gradient
            mx.eval(moved, self.state[name])
        return found

    def _one(
        self, gradient: mx.array, parameter: mx.array, packed: Mapping[str, mx.array], key: mx.array
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """A parameter, or a part of one, and its averages one step further."""
        averages = self._unpacked(packed, parameter)
        moved = self._inner.apply_single(gradient.astype(mx.float32), parameter.astype(mx.float32), averages)
        wide = not any(name.endswith(_SCALES) for name in packed)
        return moved.astype(parameter.dtype), self._packed(averages, key, wide=wide)

    def _by_parts(
        self, name: str, gradient: mx.array, parameter: mx.array, divisor: mx.array, key: mx.array
    ) -> mx.array:
        """A parameter of more than ``PART`` values one step further, and its averages in their place."""
        size, kept = parameter.size, {each: mx.array(array) for each, array in self.state[name].items()}
        values, slopes, moved = parameter.reshape(-1), gradient.reshape(-1), mx.zeros(size, parameter.dtype)
        starts = range(0, size, PART)
        for start, own in zip(starts, mx.random.split(key, len(starts)), strict=True):
            span = slice(start, min(start + PART, size))
            blocks = slice(start // BLOCK, -(-span.stop // BLOCK))
            packed = {each: array[blocks] for each, array in kept.items()}
            moved[span], packed = self._one(slopes[span] / divisor, values[span], packed, own)
            for each, array in packed.items():
                kept[each][blocks] = array
            mx.eval(moved, kept)
        self.state[name] = kept
        return moved.reshape(parameter.shape)

    def _packed(
        self, averages: Mapping[str, mx.array], key: mx.array | None, *, wide: bool
    ) -> dict[str, mx.array]:
        """``key`` rounds by chance; None: there is nothing to round yet. ``wide``: they stay as they are."""
        found: dict[str, mx.array] = {}
        keys = mx.random.split(key, len(averages)) if key is not None else [None] * len(averages)
        for own, (name, values) in zip(keys, averages.items(), strict=True):
            if wide:
                found[name] = values
                continue
            found[name], found[name + _SCALES] = pack(values, own, positive=name in self._positive)
        return found

    def _unpacked(self, packed: Mapping[str, mx.array], like: mx.array) -> dict[str, mx.array]:
        return {
            name: unpack(values, packed[name + _SCALES], like.shape) if name + _SCALES in packed else values
            for name, values in packed.items()
            if not name.endswith(_SCALES)
        }


def pack(values: mx.array, key: mx.array | None, *, positive: bool) -> tuple[mx.array, mx.array]:
    """Values of any shape to codes (N, 256), uint8 or int8, and scales (N,): the largest magnitude of each block.

    With a ``key`` up or down by chance, so that a code is right on average; else to the nearest.
    """
    flat = values.reshape(-1).astype(mx.float32)
    blocks = mx.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)
    magnitudes = mx.abs(blocks)
    scales = magnitudes.max(axis=-1)
    share = magnitudes / mx.where(scales == 0, mx.array(1.0), scales)[:, None]
    codes = _POSITIVE_CODES if positive else _SIGNED_CODES
    steps = codes * mx.sqrt(mx.sqrt(share))
    steps = mx.floor(steps + (mx.random.uniform(shape=steps.shape, key=key) if key is not None else 0.5))
    if positive:
        # one that is not zero must not become zero: it divides
        return mx.clip(steps, mx.where(share > 0, 1, 0), codes).astype(mx.uint8), scales
    return (mx.sign(blocks) * mx.minimum(steps, codes)).astype(mx.int8), scales


def unpack(codes: mx.array, scales: mx.array, shape: tuple[int, ...]) -> mx.array:
    """What :func:`pack` packed, of that shape, in float32."""
    positive = codes.dtype == mx.uint8
    share = codes.astype(mx.float32) / (_POSITIVE_CODES if positive else _SIGNED_CODES)
    magnitudes = mx.square(mx.square(share)) * scales[:, None]
    values = magnitudes if positive else mx.sign(share) * magnitudes
    return values.reshape(-1)[: math.prod(shape)].reshape(shape)
