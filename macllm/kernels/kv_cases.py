"""Cases of attention over packed keys and values with references in float64, written without it; and large samples."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import mlx.core as mx
import numpy as np

from macllm.kernels.kernel import DTYPES, Case, Reference, Sample
from macllm.kernels.kv_memory import pack
from macllm.kernels.kv_reach import Reach, blocks_of
from macllm.kernels.samples import TOLERANCES, as_float64, random
from macllm.kernels.samples import bits as random_bits
from macllm.kernels.workload import Heads, Workload
from macllm.spec.memory import KV_BITS, KV_GROUP, KV_WIDTHS

_CAPACITY = 19  # places of a buffer beyond those in view: what is there is nobody's
_FLOAT32 = 1e-5  # scores are sums too: their error is that of the exponent


def attention_cases() -> Iterator[Case]:
    """Types, bits, widths, groups of heads, places in view; windows, sinks, caps, blocks, adversarial numbers.

    Most share a compiled kernel: what is not in its template costs nothing to try.
    """
    for dtype, bits in product(DTYPES, (8, 4)):  # four query heads a head of keys
        yield _case("all keys", dtype, bits, (1, 8, 1, 128), 2, Reach(0, 33, 0.1))
        yield _case("one key", dtype, bits, (1, 8, 1, 128), 2, Reach(0, 1, 0.1))
    for (dtype, bits), width in product(((mx.float32, 8), (mx.float16, 4)), (64, 192, 256)):
        yield _case(f"heads of {width}", dtype, bits, (1, 7, 3, width), 1, Reach(2, 50, 0.1))
    for bits in (8, 4):
        few = partial(_case, dtype=mx.float32, bits=bits)
        yield few("eight queries", shape=(1, 4, 8, 128), heads=4, reach=Reach(0, 97, 0.1))
        yield few("eight queries are all", shape=(1, 7, 8, 128), heads=1, reach=Reach(0, 8, 0.1))
        yield few("later, in a batch", shape=(2, 8, 1, 128), heads=2, reach=Reach(5, 45, 0.2))
        yield few("window", shape=(1, 4, 4, 128), heads=2, reach=Reach(2, 77, 0.1, window=9))
        yield few("window of one", shape=(1, 4, 4, 128), heads=1, reach=Reach(0, 30, 0.1, window=1))
        yield few(
            "wider window than keys", shape=(1, 4, 2, 128), heads=2, reach=Reach(1, 20, 0.1, window=500)
        )
        yield few("sinks", shape=(1, 8, 2, 128), heads=4, reach=Reach(0, 41, 0.2), sinks=True)
        yield few(
            "sinks and a window", shape=(1, 4, 1, 128), heads=1, reach=Reach(3, 90, 0.1, 16), sinks=True
        )
        yield few("one great score", shape=(1, 4, 2, 128), heads=2, reach=Reach(0, 70, 1.0), size=8.0)
        yield few(
            "far below zero", shape=(1, 4, 1, 128), heads=1, reach=Reach(0, 40, -0.1), size=1.5, same=True
        )
        yield few("capped", shape=(1, 4, 2, 128), heads=2, reach=Reach(0, 23, 0.3, softcap=2.0))
        yield few("capped, great scores", shape=(1, 4, 1, 128), heads=1, reach=Reach(0, 23, 9.0, softcap=2.0))
        yield few("blocks", shape=(1, 8, 1, 128), heads=2, reach=Reach(4, 700, 0.1), blocks=3)
        yield few(
            "blocks, sinks", shape=(2, 4, 2, 128), heads=1, reach=Reach(0, 131, 0.2), sinks=True, blocks=4
        )
        yield few(
            "blocks, rows of nothing", shape=(1, 2, 8, 128), heads=1, reach=Reach(0, 99, 0.2, 3), blocks=5
        )
    for dtype in DTYPES[1:]:
        yield _case("blocks", dtype, 4, (1, 8, 1, 128), 2, Reach(0, 300, 0.1), blocks=2)


def merge_cases() -> Iterator[Case]:
    """Parts whose highest scores are near, far apart, and of nothing."""
    for dtype, (rows, blocks, width) in product(DTYPES, ((3, 2, 64), (2, 7, 128), (5, 64, 256))):
        parts = random((1, rows, 1, blocks, width))
        highs, totals = random((1, rows, 1, blocks)) * 20, mx.abs(random((1, rows, 1, blocks))) + 0.5
        unseen = mx.arange(blocks) == 1
        highs = mx.where(unseen, -1e30, highs)
        totals = mx.where(unseen, 0.0, totals)
        parts = mx.where(unseen[:, None], 0.0, parts)
        arguments = {"parts": parts, "highs": highs, "totals": totals, "dtype": dtype}
        tolerance = max(TOLERANCES[dtype], _FLOAT32)
        reference = partial(_merged, parts, highs, totals)
        yield Case(f"{blocks} blocks, one of nothing", arguments, reference, tolerance, dtype, parts.shape, 1)


def attention_samples(work: Workload) -> Iterator[Sample]:
    """A model's heads over buffers as long as its contexts, by bits and queries."""
    for heads, bits, tokens in product(_packable(work), KV_BITS, work.tokens):
        memory = _arbitrary(heads, bits, tokens, work.dtype)
        reach = Reach(0, tokens, heads.width**-0.5)
        for queries in work.rows_within(1, 8):
            q = random((1, heads.queries, queries, heads.width), work.dtype)
            arguments = {"q": q, "codes": memory[0], "scales": memory[1], "reach": reach}
            arguments["blocks"] = blocks_of(tokens)
            yield Sample(arguments, (1, heads.keys, tokens, heads.width), queries)


def merge_samples(work: Workload) -> Iterator[Sample]:
    """What a model's heads leave to be merged."""
    for heads, tokens in product(_packable(work), work.tokens):
        shape = (1, heads.queries, 1, blocks_of(tokens))
        arguments = {
            "parts": random((*shape, heads.width)),
            "highs": random(shape),
            "totals": mx.ones(shape),
            "dtype": work.dtype,
        }
        yield Sample(arguments, (*shape, heads.width), 1)


def _packable(work: Workload) -> list[Heads]:
    return [heads for heads in work.heads if heads.width in KV_WIDTHS]


def _arbitrary(heads: Heads, bits: int, tokens: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """A full buffer of any values, at once."""
    shape = (1, 4 * heads.keys, tokens, heads.width // KV_GROUP)
    scales = mx.where(mx.arange(shape[1]) < shape[1] // 2, 4 / 2**bits, -2.0)[:, None, None]
    codes = random_bits((1, 2 * heads.keys, tokens, heads.width * bits // 32))
    found = codes, mx.contiguous(mx.broadcast_to(scales, shape)).astype(dtype)
    mx.eval(found)
    return found


def _case(
    label: str,
    dtype: mx.Dtype,
    bits: int,
    shape: tuple[int, int, int, int],
    heads: int,
    reach: Reach,
    *,
    sinks: bool = False,
    blocks: int = 1,
    size: float = 1.0,
    same: bool = False,
) -> Case:
    """``same``: keys that are all nearly one query, so that no score is near zero."""
    batch, query_heads, _, width = shape
    q = random(shape, dtype) * mx.array(size, dtype)
    stored = (batch, heads, reach.stop + _CAPACITY, width)
    keys, values = random(stored), random(stored[::-1]).reshape(stored)
    if same:
        keys = q[:, :heads, :1].astype(mx.float32) + keys * 0.01
    codes, scales = pack(keys.astype(dtype), values.astype(dtype), bits)
    arguments: dict[str, Any] = {
        "q": q,
        "codes": codes,
        "scales": scales,
        "reach": reach,
        "sinks": random((query_heads,), dtype) if sinks else None,
        "blocks": blocks,
    }
    tolerance = TOLERANCES[dtype] if dtype != mx.float32 else _FLOAT32
    reference = partial(_exact, **arguments)
    return Case(
        f"{label}, {bits}-bit",
        arguments,
        reference,
        tolerance,
        dtype,
        (*stored[:2], reach.stop, width),
        shape[2],
    )


def _exact(
    q: mx.array, codes: mx.array, scales: mx.array, reach: Reach, sinks: mx.array | None, blocks: int
) -> tuple[Reference, ...]:
    """Row by row in float64: of each block the sum of values, the highest score and the total."""
    batch, heads, length, width = q.shape
    keys, values = _numbers(codes, scales)
    rows, sink = as_float64(q), as_float64(sinks) if sinks is not None else None
    y = np.zeros((batch, heads, length, blocks, width))
    highs, totals = np.zeros(y.shape[:-1]), np.zeros(y.shape[:-1])
    first = reach.stop - length - (reach.window or 10**9) + 1
    first = max(first, reach.start)
    each = math.ceil((reach.stop - first) / blocks)
    for b, h, i, block in product(*map(range, y.shape[:-1])):
        own = reach.stop - length + i
        places = [
            p for p in range(first + block * each, min(first + (block + 1) * each, reach.stop)) if p <= own
        ]
        if reach.window is not None:
            places = [p for p in places if p > own - reach.window]
        group = h * keys.shape[1] // heads
        scores = keys[b, group, places] @ rows[b, h, i] * reach.scale
        if reach.softcap is not None:
            scores = reach.softcap * np.tanh(scores / reach.softcap)
        extra = [sink[h]] if sink is not None and block == 0 else []
        high = max([*scores, *extra], default=-1e30 / np.log2(np.e))
        weights = np.exp(scores - high)
        totals[b, h, i, block] = weights.sum() + np.exp(np.array(extra) - high).sum()
        highs[b, h, i, block] = high * np.log2(np.e)
        y[b, h, i, block] = weights @ values[b, group, places]
    if blocks == 1:
        return (y / totals[..., None])[..., 0, :], highs[..., 0], totals[..., 0]
    return y, highs, totals


def _numbers(codes: mx.array, scales: mx.array) -> tuple[Reference, Reference]:
    """Keys and values (B, K, C, D) that packed memory stands for."""
    words, factors = np.array(codes), as_float64(scales)
    bits = 32 * words.shape[-1] // (64 * factors.shape[-1])
    unpacked = words[..., None] >> np.arange(0, 32, bits, dtype=np.uint32) & np.uint32(2**bits - 1)
    groups = unpacked.reshape(*words.shape[:-1], -1, 64).astype(np.float64)
    halves = factors.shape[1] // 2
    found = (groups * factors[:, :halves, ..., None] + factors[:, halves:, ..., None]).reshape(
        *words.shape[:-1], -1
    )
    return found[:, : halves // 2], found[:, halves // 2 :]


def _merged(parts: mx.array, highs: mx.array, totals: mx.array) -> tuple[Reference, ...]:
    high, part, total = as_float64(highs), as_float64(parts), as_float64(totals)
    fall = 2.0 ** (high - high.max(-1, keepdims=True))
    return ((part * fall[..., None]).sum(-2) / (total * fall).sum(-1)[..., None],)
