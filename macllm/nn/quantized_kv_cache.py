"""Caches of keys and values that hold them packed, in 8 or 4 bits: what attention sees stays packed too.

Keys and values lie in one buffer of codes and one of scales and biases (:mod:`macllm.kernels.kv_memory`): a new token
is packed and written by as many kernels as a plain cache takes, and one.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from macllm.kernels.kv_dispatch import store
from macllm.nn.kv_cache import Buffers, EveryToken, LastTokens


@dataclass(frozen=True)
class PackedView:
    """Packed keys and values: the places ``start`` to ``stop`` of a cache's buffers."""

    codes: mx.array
    scales: mx.array
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start


class _Packed(Buffers[PackedView]):
    """Codes and scales."""

    _names = ("codes", "scales")

    def __init__(self, bits: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bits = bits

    def _stored(self, keys: mx.array, values: mx.array) -> tuple[mx.array, ...]:
        return store(keys, values, self.bits)

    def _in_view(self, start: int, stop: int) -> PackedView:
        codes, scales = self.buffers
        return PackedView(codes, scales, start, stop)


class QuantizedFullCache(_Packed, EveryToken[PackedView]):
    """All keys and values: ``QuantizedFullCache(bits, padding)``."""


class QuantizedSlidingCache(_Packed, LastTokens[PackedView]):
    """Those that a window leaves in reach: ``QuantizedSlidingCache(bits, window, padding)``."""
