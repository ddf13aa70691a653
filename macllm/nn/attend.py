"""Scaled dot-product attention: MLX's kernel, or plain operations on the devices where it has none.

On CPU MLX falls back to its own composition, which repeats keys for grouped queries, computes all of a causal
mask's upper half and takes slow exponentials; :func:`composed` does none of that.
"""

from collections.abc import Callable
from typing import TypeAlias

import mlx.core as mx

from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.nn.masks import Mask

Attend: TypeAlias = Callable[[mx.array, mx.array, mx.array, float, Mask], mx.array]

_BLOCK = 128  # queries that share one range of keys: what they see beyond their own past is masked


def attend_function() -> Attend:
    """The fastest of the two for the default device."""
    return composed if slow_exponential() else fused


def fused(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Mask) -> mx.array:
    """(B, H, L, d) over (B, K, S, d) to (B, H, L, d), H a multiple of K."""
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)


def composed(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Mask) -> mx.array:
    """:func:`fused` in plain operations; a causal mask's blocks look at their own past only."""
    if q.dtype != mx.float32:
        return fused(q, k, v, scale, mask)  # half precision wants its sums in float32, as MLX does them
    q = q * (scale * LOG2_E)  # powers of two below
    length, keys = q.shape[2], k.shape[2]
    if mask is None:
        return _block(q, k, v, None)
    if not isinstance(mask, str):
        return _block(q, k, v, mx.where(mask, 0.0, -mx.inf).astype(q.dtype))
    parts = []
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        seen = keys - length + end
        parts.append(_block(q[:, :, start:end], k[:, :, :seen], v[:, :, :seen], _causal(end - start, seen)))
    return mx.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def _block(q: mx.array, k: mx.array, v: mx.array, bias: mx.array | None) -> mx.array:
    """Softmax attention in base two, ``bias`` (L, S) added; the query heads of a group are rows of one product."""
    batch, heads, length, width = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    rows = q.reshape(batch, kv_heads, group * length, width)  # (B, K, G L, d)
    scores = rows @ k.swapaxes(2, 3)  # (B, K, G L, S)
    if bias is not None:
        scores = (scores.reshape(batch, kv_heads, group, length, -1) + bias).reshape(scores.shape)
    weights = exp2(scores - mx.max(scores, axis=-1, keepdims=True))
    y = weights @ v / mx.sum(weights, axis=-1, keepdims=True)  # divided after the product: fewer values
    return y.reshape(batch, heads, length, width)


def _causal(queries: int, keys: int) -> mx.array:
    """(L, S): 0 up to a query's own position, minus infinity after it."""
    return mx.triu(mx.full((queries, keys), -mx.inf), k=keys - queries + 1)
