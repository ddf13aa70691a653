"""How fast a loaded model could decode here at most: the memory's bandwidth, over the bytes that a token moves.

The bandwidth is the chip's where it is one of Apple's, else measured: what plain reading reaches on this machine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from macllm.backend import Backend, gpu_cores
from macllm.engine.loading import Loaded
from macllm.kernels import chips
from macllm.kernels.cost import Setting, kv_packing, step
from macllm.nn.decoder import Decoder
from macllm.nn.linear import Linear
from macllm.nn.stored import DTYPES, Packed

MEASURED = "measured here"
_ROWS, _WIDTH = 16384, 4096  # of float32: 268 MB, more than any cache holds
_TRIES = 5
_TOGETHER = 4  # reads handed over at once: a GPU is not to wait for the next


@dataclass(frozen=True)
class DecodeBound:
    """Tokens a second that memory allows; ``bandwidth_from`` says whose bandwidth it is."""

    decode_bound_tps: float
    bandwidth_gb_per_s: float
    bandwidth_from: str


def decode_bound(loaded: Loaded, context: int) -> DecodeBound | None:
    """The bound with so many tokens in the cache; None where mlx-lm's class runs the model: who knows what it reads."""
    if not isinstance(loaded.model, Decoder):
        return None
    formats = {
        name: stored.quantization if isinstance(stored, Packed) else None
        for name, stored in loaded.model.tensors()
    }
    dtype = DTYPES[loaded.backend.dtype]
    setting = Setting(dense_bytes=dtype.size, kv=kv_packing(loaded.kv_bits))
    token = step(loaded.model.spec, formats, context, setting=setting)
    bandwidth, origin = memory_bandwidth(loaded.backend)
    return DecodeBound(token.tokens_per_s(bandwidth), bandwidth, origin)


def memory_bandwidth(backend: Backend) -> tuple[float, str]:
    """In GB/s, and whose it is: the chip's of a known one, else what was measured."""
    chip = chips.find(backend.device, gpu_cores()) if backend.name == "metal" else None
    if chip is not None:
        return chip.bandwidth_gb_s, chip.name
    return measured_bandwidth(), MEASURED


def measured_bandwidth() -> float:
    """GB/s of the quickest way to read a large array: as the product that a layer makes of one token, or as a sum."""
    on_cpu = mx.default_device() == mx.cpu
    array = mx.ones((_ROWS, _WIDTH))
    layer, row = Linear((), array, None), mx.ones((1, _WIDTH))
    mx.eval(array, row)
    ways: list[Callable[[], mx.array]] = [lambda: layer(row)]
    if not on_cpu:  # there a sum is one core's work
        ways.append(array.sum)
    together = 1 if on_cpu else _TOGETHER
    fastest = min(_seconds(way, together) for way in ways for _ in range(_TRIES))
    return array.nbytes * together / fastest / 1e9


def _seconds(read: Callable[[], mx.array], together: int) -> float:
    start = time.perf_counter()
    mx.eval([read() for _ in range(together)])
    return time.perf_counter() - start
