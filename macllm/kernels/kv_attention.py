"""Attention over packed keys and values, of which no unpacked copy is ever made.

Memory is laid out as :mod:`macllm.kernels.kv_memory` says. Queries (B, H, L, D), H a multiple of the K heads of keys,
are the last L tokens of those in view. Each sees the keys up to its own, of a window the last ``window``; ``sinks``
(H,) are scores that take weight and give nothing; ``softcap`` bounds scores (``softcap * tanh(score / softcap)``).

Many keys are cut into blocks, and a second kernel merges what they gave: sums that were not divided yet, each with
its highest score (in base two) and its total (as MLX's sdpa_vector_2pass). Kernels of any length are the same text:
what depends on it comes in small arrays.
"""

import math
from functools import cache, lru_cache
from typing import Any

import mlx.core as mx

from macllm.kernels.kernel import Body, Kernel, Launch
from macllm.kernels.kv_cases import attention_cases, attention_samples, merge_cases, merge_samples
from macllm.kernels.kv_memory import MODES, Packed, bits_of, keys_and_values
from macllm.kernels.kv_reach import MOST_QUERIES, Reach
from macllm.spec.memory import KV_GROUP

LOG2_E = math.log2(math.e)
NOTHING = -1e30  # the highest of no scores; no infinity, which fast arithmetic may not know
_NO_WINDOW = 2**30
_SIMDGROUPS = 8  # of a threadgroup
_NUMBERS = 32  # of a lane: more rows than so many fill are another threadgroup's


def weighted(
    q: mx.array,
    packed: tuple[Packed, Packed],
    mask: mx.array | None,
    scale: float,
    softcap: float | None = None,
    sinks: mx.array | None = None,
) -> mx.array:
    """Attention (B, H, L, D) to the keys that ``mask`` (..., L, S) has True for, in plain operations and float32."""
    weights, total, _ = _weights(q, packed[0], mask, scale, softcap, sinks)
    return (_product(weights, packed[1]) / total).reshape(q.shape).astype(q.dtype)


def _weights(
    q: mx.array,
    keys: Packed,
    mask: mx.array | None,
    scale: float,
    softcap: float | None,
    sinks: mx.array | None,
) -> tuple[mx.array, mx.array, mx.array]:
    """Weights (B, K, G L, S), their totals and highest scores (B, K, G L, 1), in base two."""
    batch, heads, length, width = q.shape
    kv_heads = keys[0].shape[1]
    rows = q.astype(mx.float32).reshape(
        batch, kv_heads, -1, width
    )  # a group's query heads: rows of one product
    factor = scale * LOG2_E if softcap is None else scale / softcap
    scores = _product(rows * factor, keys, transpose=True)
    if softcap is not None:
        scores = mx.tanh(scores) * (softcap * LOG2_E)
    if mask is not None:
        bias = mx.where(mask, 0.0, -mx.inf)
        scores = (scores.reshape(batch, heads, length, -1) + bias).reshape(scores.shape)
    high = mx.maximum(mx.max(scores, axis=-1, keepdims=True), NOTHING)
    sink = None
    if sinks is not None:
        grouped = sinks.astype(mx.float32).reshape(kv_heads, -1) * LOG2_E
        sink = mx.repeat(grouped, length, axis=1)[..., None]  # (K, G L, 1)
        high = mx.maximum(high, sink)
    weights = mx.power(_two(), scores - high)
    total = mx.sum(weights, axis=-1, keepdims=True)
    return weights, total if sink is None else total + mx.power(_two(), sink - high), high


def _product(rows: mx.array, packed: Packed, transpose: bool = False) -> mx.array:
    """Rows in float32 times packed numbers: MLX sums in the type it is given."""
    codes, scales, biases = packed
    scale, bias = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.quantized_matmul(rows, codes, scale, bias, transpose, KV_GROUP, bits_of(codes, scales))


@cache
def _two() -> mx.array:
    return mx.array(2.0)


# ---- the kernels ----

_ATTENTION = Body(
    "kv_attention", ("q", "codes", "scales", "reach", "factors", "sinks"), ("y", "highs", "totals")
)
_MERGE = Body("kv_merge", ("parts", "highs", "totals", "count"), ("y",))


def _bind(
    q: mx.array,
    codes: mx.array,
    scales: mx.array,
    reach: Reach,
    sinks: mx.array | None = None,
    blocks: int = 1,
) -> Launch:
    batch, heads, length, width = q.shape
    kv_heads, bits, cap = codes.shape[1] // 2, bits_of(codes, scales), reach.softcap
    rows = heads // kv_heads * length
    chunks, each = _chunks(rows, width, bits)
    places = (reach.start, reach.stop, reach.window or _NO_WINDOW, codes.shape[2], kv_heads, rows, length)
    factors = (reach.scale * LOG2_E, 1.0) if cap is None else (reach.scale / cap, cap * LOG2_E)
    dtype = q.dtype if blocks == 1 else mx.float32
    shape = (batch, heads, length) if blocks == 1 else (batch, heads, length, blocks)
    small = (*_numbers(places, (*factors, float(sinks is not None))), mx.zeros(1) if sinks is None else sinks)
    return Launch(
        _ATTENTION,
        (q, codes, scales, *small),
        {
            "O": dtype,
            "BITS": bits,
            "D": width,
            "ROWS": each,
            "CAPPED": cap is not None,
            "WHOLE": blocks == 1,
        },
        (32 * chunks * kv_heads * batch, _SIMDGROUPS * blocks, 1),
        (32, _SIMDGROUPS, 1),
        ((*shape, width), shape, shape),
        (dtype, mx.float32, mx.float32),
    )


@lru_cache(maxsize=16)
def _numbers(places: tuple[int, ...], factors: tuple[float, ...]) -> tuple[mx.array, mx.array]:
    """As arrays: the same ones for all layers of a step whose heads and windows are alike."""
    return mx.array(places, mx.int32), mx.array(factors)


def _chunks(rows: int, width: int, bits: int) -> tuple[int, int]:
    """Threadgroups that the rows of a head of keys are cut into, and the rows of each."""
    words = width * bits // 32
    lanes = min(words & -words, 32)
    chunks = -(-rows // max(1, _NUMBERS * lanes // width))
    return chunks, -(-rows // chunks)


def _bind_merge(parts: mx.array, highs: mx.array, totals: mx.array, dtype: mx.Dtype) -> Launch:
    *shape, blocks, width = parts.shape
    return Launch(
        _MERGE,
        (parts, highs, totals, mx.array([blocks], mx.int32)),
        {"O": dtype, "D": width},
        (math.prod(shape) * width, 1, 1),
        (width, 1, 1),
        ((*shape, width),),
        (dtype,),
    )


def attention(
    q: mx.array,
    codes: mx.array,
    scales: mx.array,
    reach: Reach,
    sinks: mx.array | None = None,
    blocks: int = 1,
) -> tuple[mx.array, ...]:
    """The twin: y (B, H, L, D), highest scores and totals (B, H, L); of ``blocks`` each (B, H, L, blocks, ...)."""
    shape, mask = q.shape, _mask(q.shape[2], reach)
    first = reach.first(shape[2])
    each = -(-(reach.stop - first) // blocks)
    parts = []
    for start in range(first, reach.stop, each):
        seen = slice(start, min(start + each, reach.stop))
        keys, values = keys_and_values(codes[:, :, seen], scales[:, :, seen])
        near = mask[:, start - first : seen.stop - first] if mask is not None else None
        own = sinks if start == first else None
        weights, total, high = _weights(q, keys, near, reach.scale, reach.softcap, own)
        parts.append((_product(weights, values), high, total))
    if blocks == 1:
        y, high, total = parts[0]
        return (y / total).astype(q.dtype).reshape(shape), high.reshape(shape[:3]), total.reshape(shape[:3])
    y, high, total = (
        mx.stack(list(each_), axis=3) for each_ in zip(*parts, strict=True)
    )  # (B, K, G L, blocks, D or 1)
    return y.reshape(*shape[:3], blocks, -1), high.reshape(*shape[:3], -1), total.reshape(*shape[:3], -1)


def _mask(queries: int, reach: Reach) -> mx.array | None:
    """Booleans (L, S) over the keys from the first that any query sees; None where all see all of them."""
    if queries == 1:
        return None
    place = mx.arange(reach.stop - queries, reach.stop)[:, None]
    key = mx.arange(reach.first(queries), reach.stop)[None]
    seen = key <= place
    return seen if reach.window is None else seen & (key > place - reach.window)


def merged(parts: mx.array, highs: mx.array, totals: mx.array, dtype: mx.Dtype) -> tuple[mx.array, ...]:
    """The twin of the second kernel: (B, H, L, D)."""
    fall = mx.power(_two(), highs - mx.max(highs, axis=-1, keepdims=True))
    total = mx.sum(totals * fall, axis=-1)[..., None]
    return ((mx.sum(parts * fall[..., None], axis=-2) / total).astype(dtype),)


def _whole(**arguments: Any) -> tuple[mx.array, ...]:
    """The twin as it takes the kernels' place: all keys at once."""
    return attention(**{**arguments, "blocks": 1})


ATTENTION = Kernel(
    "kv_attention",
    "attention",
    _ATTENTION,
    MODES,
    (1, MOST_QUERIES),
    _bind,
    attention,
    attention_cases,
    samples=attention_samples,
    rival=_whole,
)
MERGE = Kernel(
    "kv_merge",
    "attention",
    _MERGE,
    MODES,
    (1, MOST_QUERIES),
    _bind_merge,
    merged,
    merge_cases,
    samples=merge_samples,
)
KERNELS = (ATTENTION, MERGE)
