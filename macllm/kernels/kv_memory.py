"""Keys and values as a cache packs them: affine codes of 8 or 4 bits, each 64 numbers with a scale and a bias.

The keys' heads lie before the values' in one buffer, so that new tokens cost one kernel and two writes:

- ``codes`` uint32 (B, 2 K, C, D * bits / 32), keys then values, packed as MLX packs;
- ``scales`` (B, 4 K, C, D / 64) in the compute type: of keys, of values, then the biases of keys and of values.

C is the capacity of a buffer; which of its places are in view is said beside it.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from macllm.kernels.kernel import DTYPES, Body, Case, Kernel, Launch, Reference, Sample
from macllm.kernels.samples import as_float64
from macllm.kernels.workload import Workload
from macllm.spec.memory import KV_BITS, KV_GROUP, KV_WIDTHS

MODES = tuple(f"affine {bits}-bit" for bits in KV_BITS)
Packed: TypeAlias = tuple[mx.array, mx.array, mx.array]  # codes, scales and biases of keys or of values


def pack(keys: mx.array, values: mx.array, bits: int) -> tuple[mx.array, mx.array]:
    """``codes`` and ``scales`` of keys and values (B, K, L, D), by MLX's own quantization."""
    both = mx.concatenate([keys, values], axis=1)
    codes, scales, biases = mx.quantize(both, KV_GROUP, bits)
    return codes, mx.concatenate([scales, biases], axis=1)


def keys_and_values(codes: mx.array, scales: mx.array, heads: slice = slice(None)) -> tuple[Packed, Packed]:
    """What belongs to the keys, and to the values, of ``heads``: views of the buffers."""
    count = codes.shape[1] // 2
    parts = [scales[:, start * count : (start + 1) * count][:, heads] for start in range(4)]
    return (codes[:, :count][:, heads], parts[0], parts[2]), (codes[:, count:][:, heads], parts[1], parts[3])


def unpack(packed: Packed, dtype: mx.Dtype) -> mx.array:
    """The numbers (B, K, S, D) that ``packed`` stands for."""
    codes, scales, biases = packed
    return mx.dequantize(codes, scales, biases, KV_GROUP, bits_of(codes, scales), dtype=dtype)


def bits_of(codes: mx.array, scales: mx.array) -> int:
    """Bits of a code."""
    return 32 * codes.shape[-1] // (scales.shape[-1] * KV_GROUP)


# ---- the kernel ----

_QUANTIZE = Body("kv_quantize", ("keys", "values", "count"), ("codes", "scales"))
_SIMDGROUPS = 4  # of a threadgroup


def _bind(keys: mx.array, values: mx.array, bits: int) -> Launch:
    batch, heads, tokens, width = keys.shape
    plane = tokens * width // KV_GROUP
    groups = batch * 2 * heads * plane
    return Launch(
        _QUANTIZE,
        (keys, values, mx.array([plane, heads, groups], mx.int32)),
        {"T": keys.dtype, "BITS": bits},
        (32 * -(-groups // _SIMDGROUPS), _SIMDGROUPS, 1),
        (32, _SIMDGROUPS, 1),
        (
            (batch, 2 * heads, tokens, width * bits // 32),
            (batch, 4 * heads, tokens, width // KV_GROUP),
        ),
        (mx.uint32, keys.dtype),
    )


def _cases() -> Iterator[Case]:
    """Numbers on a grid of powers of two: no code is in doubt, whatever the rounding of a division."""
    shapes = ((1, 1, 1, 64), (1, 2, 5, 128), (2, 3, 3, 192), (1, 2, 7, 256))
    for dtype, bits, shape in product(DTYPES, (8, 4), shapes):
        keys, values = (_on_grid(shape, bits, seed).astype(dtype) for seed in (1, 2))
        yield _case(f"{bits}-bit, farthest number below or above zero", keys, values, bits)
    for dtype, bits in product(DTYPES, (8, 4)):
        same = mx.full((1, 2, 3, 64), 2.0, dtype)
        yield _case(f"{bits}-bit, all zeros, all the same", mx.zeros_like(same), same, bits)
    for bits in (8, 4):
        keys, values = (_off_grid((1, 2, 3, 128), bits, seed) for seed in (3, 4))
        yield _case(f"{bits}-bit, a quarter of a step off, zero met", keys, values, bits)


def _case(label: str, keys: mx.array, values: mx.array, bits: int) -> Case:
    arguments = {"keys": keys, "values": values, "bits": bits}
    return Case(
        label,
        arguments,
        partial(_exact, keys, values, bits),
        0,
        keys.dtype,
        keys.shape,
        keys.shape[2],
    )


def _on_grid(shape: tuple[int, ...], bits: int, seed: int) -> mx.array:
    """Groups that span exactly their codes, half of them with the number that is farthest from zero below it."""
    generator = np.random.default_rng(seed)
    groups = (*shape[:-1], shape[-1] // KV_GROUP, KV_GROUP)
    top = 2**bits - 1
    steps = generator.integers(0, top + 1, groups)
    steps[..., 3], steps[..., 40] = 0, top
    below = generator.integers(0, 2, (*groups[:-1], 1)) > 0
    numbers = np.where(below, steps - 2 ** (bits - 1), 2 ** (bits - 1) - steps)
    sizes = 2.0 ** generator.integers(-6, 3, (*groups[:-1], 1))
    return mx.array((numbers * sizes).reshape(shape).astype(np.float32))


def _off_grid(shape: tuple[int, ...], bits: int, seed: int) -> mx.array:
    """Groups in which zero lies a quarter of a step off at first, and every number but the farthest after it is met.

    Steps are powers of two, and one and a small power of two once zero is met: divisions are exact enough.
    """
    generator = np.random.default_rng(seed)
    groups = (*shape[:-1], shape[-1] // KV_GROUP, KV_GROUP)
    half = 2 ** (bits - 1)
    step = 1 + 0.25 / half
    codes = generator.integers(1, 2**bits - 1, groups)
    numbers = (codes - half + generator.choice([-0.25, 0.25], groups)) * step
    numbers[..., 5], numbers[..., 55] = -half - 0.25, half - 1.25
    turned = generator.choice([-1.0, 1.0], (*groups[:-1], 1))
    turned[..., 0, :] = 1  # a group whose farthest number is below zero is always there
    sizes = turned * 2.0 ** generator.integers(-6, 3, turned.shape)
    return mx.array((numbers * sizes).reshape(shape).astype(np.float32))


def _exact(keys: mx.array, values: mx.array, bits: int) -> tuple[Reference, ...]:
    """:func:`pack` in float64, written without it."""
    found = [_exact_one(as_float64(array), bits) for array in (keys, values)]
    words = [words for words, _, _ in found]
    rounded = [
        as_float64(mx.array(numbers.astype(np.float32)).astype(keys.dtype))
        for place in (1, 2)
        for numbers in (found[0][place], found[1][place])
    ]
    return np.concatenate(words, axis=1), np.concatenate(rounded, axis=1)


def _exact_one(numbers: Reference, bits: int) -> tuple[Reference, Reference, Reference]:
    groups = numbers.reshape(*numbers.shape[:-1], -1, KV_GROUP)
    low, high = groups.min(-1), groups.max(-1)
    below = np.abs(low) > np.abs(high)
    edge = np.where(below, low, high)
    scale = np.maximum((high - low) / (2**bits - 1), 1e-7) * np.where(below, 1, -1)
    steps = np.round(edge / scale)
    scale = np.where(steps == 0, scale, edge / np.where(steps == 0, 1, steps))
    bias = np.where(steps == 0, 0, edge)
    codes = np.round((groups - bias[..., None]) / scale[..., None]).reshape(
        *numbers.shape[:-1], -1, 32 // bits
    )
    words = (codes * 2.0 ** (bits * np.arange(32 // bits))).sum(-1)
    return words, scale, bias


def _samples(work: Workload) -> Iterator[Sample]:
    """One new token, and a chunk of a prompt, of a model's heads."""
    for heads, bits, tokens in product(work.heads, KV_BITS, (1, min(work.tokens))):
        if heads.width in KV_WIDTHS:
            shape = (1, heads.keys, tokens, heads.width)
            keys = mx.random.normal(shape, work.dtype, key=mx.random.key(0))
            mx.eval(keys)
            yield Sample({"keys": keys, "values": keys, "bits": bits}, shape, tokens)


QUANTIZE = Kernel(
    "kv_quantize",
    "attention",
    _QUANTIZE,
    MODES,
    (1, 2**20),
    _bind,
    lambda **arguments: pack(**arguments),
    _cases,
    samples=_samples,
)
KERNELS = (QUANTIZE,)
