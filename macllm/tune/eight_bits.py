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

from macllm.tune.peak import BLOCK

LEAST = 4096  # values; averages of fewer stay in float32, as in the paper's implementation
_SCALES = "_scales"
_SIGNED_CODES, _POSITIVE_CODES = 127, 255


class EightBits:
    """An optimizer of MLX whose averages are kept packed between its steps."""

    def __init__(self, inner: Any, positive: frozenset[str]) -> None:
        """``positive``: names of the averages that are never below zero."""
        self._inner = inner
        self._positive = positive
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
            self.state[name] = self._packed(averages, None)
            mx.eval(self.state[name])

    def moved(
        self, gradients: Mapping[str, mx.array], parameters: Mapping[str, mx.array], divisor: mx.array
    ) -> dict[str, mx.array]:
        """The parameters one step further along ``gradients / divisor``, one after the other.

        So the averages of one alone are unpacked at a time, and one alone is there in float32.
        """
        self.state["step"] = self.step + 1
        number = int(np.array(self.step))
        self._inner.state["step"], self._inner.learning_rate = self.step, self.learning_rate
        moved = {}
        for index, (name, parameter) in enumerate(parameters.items()):
            averages = self._unpacked(self.state[name], parameter)
            slope = gradients[name].astype(mx.float32) / divisor
            found = self._inner.apply_single(slope, parameter.astype(mx.float32), averages)
            moved[name] = found.astype(parameter.dtype)
            self.state[name] = self._packed(averages, mx.random.key((number << 20) + index))
            del averages, slope, found
            mx.eval(moved[name], self.state[name])
        return moved

    def _packed(self, averages: Mapping[str, mx.array], key: mx.array | None) -> dict[str, mx.array]:
        """``key`` rounds by chance; None: there is nothing to round yet."""
        found: dict[str, mx.array] = {}
        keys = mx.random.split(key, len(averages)) if key is not None else [None] * len(averages)
        for own, (name, values) in zip(keys, averages.items(), strict=True):
            if values.size < LEAST:
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
