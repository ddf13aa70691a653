"""Attention for training whose scores are not kept: the backward pass computes them anew, a block of queries at a time.

Kept are queries, keys and values alone, so that memory grows with the tokens and not with their square (the idea of
FlashAttention, arXiv 2205.14135, in plain operations).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import mlx.core as mx

# queries (B, H, n, d), keys (B, K, S, d), values (B, K, S, e), and sinks (H,) where there are any, to (B, H, n, e)
OfBlock: TypeAlias = Callable[..., mx.array]


@dataclass(frozen=True)
class Block:
    """Consecutive queries, the keys that they see, and how they see them."""

    rows: slice
    seen: slice
    attend: OfBlock

    def parts(self, q: mx.array, k: mx.array, v: mx.array, *sinks: mx.array) -> list[mx.array]:
        """Of all queries, keys and values, what this block looks at."""
        return [q[:, :, self.rows], k[:, :, self.seen], v[:, :, self.seen], *sinks]


def attend_recomputed(
    blocks: Sequence[Block], q: mx.array, k: mx.array, v: mx.array, sinks: mx.array | None
) -> mx.array:
    """(B, H, L, d) over (B, K, S, d) and (B, K, S, e) to (B, H, L, e), by blocks that cover L in order."""

    def forward(*given: mx.array) -> mx.array:
        found: list[mx.array] = []
        for block in blocks:
            found.append(block.attend(*_after(found[-1:], block.parts(*given))))
        return mx.concatenate(found, axis=2)

    def backward(given: Any, above: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        found: list[mx.array] = []
        totals = [mx.zeros_like(each) for each in given[1:]]
        for block in blocks:
            parts = _after([*found[-1:], *totals] if found else [], block.parts(*given))
            of_q, *others = mx.vjp(block.attend, parts, [above[:, :, block.rows]])[1]
            found.append(of_q)
            for index, one in enumerate(others):
                seen = totals[index].at[:, :, block.seen]
                totals[index] = seen.add(one) if index < 2 else totals[index] + one
        return (mx.concatenate(found, axis=2), *totals)

    whole: Any = mx.custom_function(forward)
    whole.vjp(backward)
    y: mx.array = whole(q, k, v, *(() if sinks is None else (sinks,)))
    return y


def _after(before: list[mx.array], parts: list[mx.array]) -> list[mx.array]:
    """The parts once ``before`` is computed: MLX would begin many blocks at once, and all their scores be there."""
    return [mx.depends(parts[0], before), *parts[1:]] if before else parts
