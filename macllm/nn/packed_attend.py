"""Attention to packed keys and values: few queries read them as they lie, a prompt's see them unpacked a few heads at a
time, so that memory stays bounded and MLX's own kernel does the rest.
"""

import mlx.core as mx

from macllm.kernels.kv_attention import weighted
from macllm.kernels.kv_dispatch import attend
from macllm.kernels.kv_memory import keys_and_values, unpack
from macllm.kernels.kv_reach import MOST_QUERIES, Reach
from macllm.nn.attend import Attend
from macllm.nn.quantized_kv_cache import PackedView
from macllm.nn.step import Step

_MOST_UNPACKED = 64 * 2**20  # bytes of keys and values at once, of one head at least


def attend_packed(
    plain: Attend, q: mx.array, view: PackedView, step: Step, sinks: mx.array | None = None
) -> mx.array:
    """(B, H, L, d) over the packed keys and values in view to (B, H, L, d), as ``plain`` does over plain ones."""
    if q.shape[2] > MOST_QUERIES:
        return _by_heads(plain, q, view, step, sinks)
    scores = plain.scores
    first = step.offset + step.length - view.tokens  # of the keys, in the sequence
    queries = range(step.offset, step.offset + step.length)
    chunk = scores.chunk
    if step.padding is None and (chunk is None or queries[0] // chunk == queries[-1] // chunk):
        start = view.start + plain.start(step.offset, first)
        reach = Reach(start, view.stop, scores.scale, scores.window, scores.softcap)
        return attend(q, view.codes, view.scales, reach, sinks)
    seen = slice(view.start, view.stop)
    packed = keys_and_values(view.codes[:, :, seen], view.scales[:, :, seen])
    mask = step.mask(queries, range(first, queries.stop), scores.window, chunk)
    return weighted(q, packed, mask, scores.scale, scores.softcap, sinks)


def _by_heads(plain: Attend, q: mx.array, view: PackedView, step: Step, sinks: mx.array | None) -> mx.array:
    batch, heads, _, width = q.shape
    kv_heads = view.codes.shape[1] // 2
    group = heads // kv_heads
    head_bytes = 2 * batch * view.tokens * width * q.dtype.size
    count = max(1, _MOST_UNPACKED // head_bytes)
    seen = slice(view.start, view.stop)
    parts = []
    for start in range(0, kv_heads, count):
        some = slice(start, min(start + count, kv_heads))
        own = slice(some.start * group, some.stop * group)
        packed = keys_and_values(view.codes[:, :, seen], view.scales[:, :, seen], some)
        k, v = (unpack(each, q.dtype) for each in packed)
        parts.append(plain(q[:, own], k, v, step, None if sinks is None else sinks[own]))
    return mx.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
