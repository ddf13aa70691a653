"""Scaled dot-product attention: MLX's kernel, or plain operations where it has none.

No mask of all queries by all keys is ever made. Where a mask is needed, queries are taken in blocks, and a block
sees no more keys than its window or chunk reaches, so that time and memory of a sliding window grow with the
prompt and not with its square.

On x86 CPUs MLX falls back to its own composition, which repeats keys for grouped queries, computes all of a causal
mask's upper half and takes slow exponentials; :func:`composed` does none of that. It is also what soft-capped scores
take everywhere, since no kernel has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import mlx.core as mx

from macllm.nn.activations import soft_cap
from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.nn.packed_step import PackedStep
from macllm.nn.recomputed import Block, attend_recomputed
from macllm.nn.step import Step

Mask: TypeAlias = (
    mx.array | Literal["causal"] | None
)  # booleans (L, S), or a bias that is added to the scores

_CPU_BLOCK, _GPU_BLOCK = 128, 512  # queries that share one range of keys


@dataclass(frozen=True)
class Scores:
    """What becomes of the scores: how far a query sees, and what is done before softmax."""

    scale: float
    window: int | None = None
    chunk: int | None = None
    softcap: float | None = None
    slopes: tuple[float, ...] | None = None  # ALiBi, one a head


class Attend:
    """Attention with one kind of scores; the faster of the two ways for the default device."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self._composed = slow_exponential() or scores.softcap is not None
        self._block = _CPU_BLOCK if mx.default_device() == mx.cpu else _GPU_BLOCK

    def __call__(
        self, q: mx.array, k: mx.array, v: mx.array, step: Step, sinks: mx.array | None = None
    ) -> mx.array:
        """(B, H, L, d) over (B, K, S, d) and (B, K, S, e) to (B, H, L, e), H a multiple of K; sinks (H,).

        The keys are the last S of the sequence, the queries' own the last of them.
        """
        length, keys = q.shape[2], k.shape[2]
        if length == 1 and step.padding is None and self.scores.slopes is None:  # nothing to mask
            start = self.start(step.offset, step.offset + 1 - keys)
            if start > 0:
                k, v = k[:, :, start:], v[:, :, start:]
            return self._one(None, q, k, v, sinks)
        if isinstance(step, PackedStep):
            return self._by_run(q, k, v, step, sinks)
        blocks = [
            Block(slice(rows.start, rows.stop), seen, partial(self._one, mask))
            for rows, seen, mask in self._blocks(length, keys, step, q.dtype)
        ]
        if len(blocks) > 1 and step.recomputes:
            return attend_recomputed(blocks, q, k, v, sinks)
        others = () if sinks is None else (sinks,)
        parts = [block.attend(*block.parts(q, k, v, *others)) for block in blocks]
        return mx.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]

    def _by_run(
        self, q: mx.array, k: mx.array, v: mx.array, step: PackedStep, sinks: mx.array | None
    ) -> mx.array:
        """The same for packed rows: each document sees itself, padding gives zeros."""
        runs = zip(step.runs, *(step.apart(each) for each in (q, k, v)), strict=True)
        return step.together(
            [
                self(q, k, v, run.step, sinks)
                if run.step is not None
                else mx.zeros((*q.shape[:3], v.shape[3]), q.dtype)
                for run, q, k, v in runs
            ]
        )

    def _one(
        self, mask: Mask, q: mx.array, k: mx.array, v: mx.array, sinks: mx.array | None = None
    ) -> mx.array:
        scores = self.scores
        if scores.softcap is not None and sinks is None and not slow_exponential():
            return capped(q, k, v, scores.scale, mask, scores.softcap)
        if self._composed:
            return composed(q, k, v, scores.scale, mask, scores.softcap, sinks)
        return fused(q, k, v, scores.scale, mask, sinks)

    def _blocks(
        self, length: int, keys: int, step: Step, dtype: mx.Dtype
    ) -> Iterator[tuple[range, slice, Mask]]:
        """Queries, the keys they see (both counted within q and k) and their mask."""
        scores = self.scores
        first = step.offset + step.length - keys  # of the keys, in the sequence
        plain = scores.slopes is None and step.padding is None
        within = scores.window is None and scores.chunk is None
        if plain and within and not self._composed:
            yield range(length), slice(None), "causal"
            return
        for start in range(0, length, self._block):
            rows = range(start, min(start + self._block, length))
            queries = range(step.offset + rows.start, step.offset + rows.stop)
            low = self.start(queries.start, first) if step.padding is None or scores.chunk is None else 0
            seen = range(first + low, queries.stop)
            yield rows, slice(low, low + len(seen)), self._mask(queries, seen, step, dtype)

    def start(self, query: int, first: int) -> int:
        """Where, in the keys from ``first`` on, those begin that a query and the ones after it may see."""
        scores = self.scores
        if scores.window is not None:
            return max(0, query - scores.window + 1 - first)
        return max(0, query - query % scores.chunk - first) if scores.chunk is not None else 0

    def _mask(self, queries: range, seen: range, step: Step, dtype: mx.Dtype) -> Mask:
        scores = self.scores
        if scores.slopes is None and step.padding is None:
            if len(queries) == 1:
                return None  # all that was cut out for it
            out_of_reach = scores.window is not None and queries[-1] - scores.window >= seen.start
            crossing = (
                scores.chunk is not None and queries.start // scores.chunk != queries[-1] // scores.chunk
            )
            if not out_of_reach and not crossing:
                return "causal"
        if scores.slopes is not None:
            return step.penalties(queries, seen, scores.window, scores.chunk, scores.slopes, dtype)
        return step.mask(queries, seen, scores.window, scores.chunk)


def fused(
    q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Mask, sinks: mx.array | None = None
) -> mx.array:
    """(B, H, L, d) over (B, K, S, d) to (B, H, L, d), H a multiple of K, by MLX's kernel."""
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask, sinks=sinks)


def capped(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Mask, softcap: float) -> mx.array:
    """:func:`composed` with soft-capped scores and MLX's softmax: few kernels where exponentials are quick."""
    batch, heads, length, width = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    rows = (q * scale).reshape(
        batch, kv_heads, -1, width
    )  # the query heads of a group are rows of one product
    scores = soft_cap(softcap, wide=True)(rows @ k.swapaxes(2, 3))  # (B, K, G L, S)
    if mask is not None:
        bias = (
            mx.where(mx.tri(length, keys, keys - length, mx.bool_), 0.0, -mx.inf)
            if isinstance(mask, str)
            else mask
        )
        if bias.dtype == mx.bool_:
            bias = mx.where(bias, 0.0, -mx.inf)
        scores = (scores.reshape(batch, heads, length, keys) + bias).reshape(scores.shape)
    y = mx.softmax(scores, axis=-1).astype(v.dtype) @ v
    return y.reshape(batch, heads, length, -1)


def composed(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    mask: Mask,
    softcap: float | None = None,
    sinks: mx.array | None = None,
) -> mx.array:
    """:func:`fused` in plain operations, with scores that become ``cap * tanh(score / cap)`` (Gemma 2).

    Softmax is in base two; the query heads of a group are rows of one product.
    """
    if q.dtype != mx.float32 and softcap is None:
        return fused(
            q, k, v, scale, mask, sinks
        )  # half precision wants its sums in float32, as MLX does them
    batch, heads, length, width = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    group = heads // kv_heads
    rows = (q * (scale if softcap is not None else scale * LOG2_E)).reshape(batch, kv_heads, -1, width)
    scores = (rows @ k.swapaxes(2, 3)).astype(mx.float32)  # (B, K, G L, S)
    if softcap is not None:
        scores = mx.tanh(scores / softcap) * (softcap * LOG2_E)
    if mask is not None:
        bias = _bias(mask, length, keys)
        apart = (
            scores.reshape(batch, heads, length, keys)
            if bias.ndim > 2
            else (scores.reshape(batch, kv_heads, group, length, keys))
        )
        scores = (apart + bias).reshape(batch, kv_heads, group * length, keys)
    highest = mx.max(scores, axis=-1, keepdims=True)
    if sinks is None:
        weights = exp2(scores - highest)
        total = mx.sum(weights, axis=-1, keepdims=True)
    else:
        sink = mx.repeat(sinks.reshape(kv_heads, group).astype(mx.float32) * LOG2_E, length, axis=1)[
            ..., None
        ]
        highest = mx.maximum(highest, sink)
        weights = exp2(scores - highest)
        total = mx.sum(weights, axis=-1, keepdims=True) + exp2(sink - highest)
    y = weights.astype(v.dtype) @ v / total.astype(v.dtype)  # divided after the product: fewer values
    return y.reshape(batch, heads, length, -1)


def _bias(mask: mx.array | str, queries: int, keys: int) -> mx.array:
    """What a mask adds to scores in base two: (L, S), (B, 1, L, S) or (H, L, S)."""
    if isinstance(mask, str):
        return _causal(queries, keys)
    return mx.where(mask, 0.0, -mx.inf) if mask.dtype == mx.bool_ else mask * LOG2_E


def _causal(queries: int, keys: int) -> mx.array:
    """(L, S): 0 up to a query's own position, minus infinity after it."""
    return mx.triu(mx.full((queries, keys), -mx.inf), k=keys - queries + 1)
