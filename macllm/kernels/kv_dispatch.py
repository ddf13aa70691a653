"""Writes and reads packed keys and values: by kernels where they may run, by their twins elsewhere.

Which kernels may run is settled once for each type and asked anew when permits change.
"""

import mlx.core as mx

from macllm.kernels.kernel import Kernel, Runner
from macllm.kernels.kv_attention import ATTENTION, MERGE, attention, merged
from macllm.kernels.kv_memory import QUANTIZE, pack
from macllm.kernels.kv_reach import Reach, blocks_of
from macllm.kernels.permission import keeps_choices, permitted

_runners: dict[tuple[str, mx.Dtype], Runner | None] = {}
keeps_choices(_runners.clear)


def store(keys: mx.array, values: mx.array, bits: int) -> tuple[mx.array, ...]:
    """Codes and scales of new keys and values (B, K, L, D), as :mod:`macllm.kernels.kv_memory` lays them out."""
    run = _runner(QUANTIZE, keys.dtype)
    return pack(keys, values, bits) if run is None else QUANTIZE(run, keys=keys, values=values, bits=bits)


def attend(
    q: mx.array, codes: mx.array, scales: mx.array, reach: Reach, sinks: mx.array | None = None
) -> mx.array:
    """(B, H, L, D) of up to MOST_QUERIES queries."""
    run = _runner(ATTENTION, q.dtype)
    if run is None:
        return attention(q, codes, scales, reach, sinks)[0]
    blocks = blocks_of(reach.stop - reach.first(q.shape[2]))
    memory = {"q": q, "codes": codes, "scales": scales, "reach": reach, "sinks": sinks}
    y, highs, totals = ATTENTION(run, **memory, blocks=blocks)
    if blocks == 1:
        return y
    merge = _runner(MERGE, q.dtype)
    if merge is None:
        return merged(y, highs, totals, q.dtype)[0]
    return MERGE(merge, parts=y, highs=highs, totals=totals, dtype=q.dtype)[0]


def _runner(kernel: Kernel, dtype: mx.Dtype) -> Runner | None:
    key = (kernel.name, dtype)
    if key not in _runners:
        permit = permitted(kernel, dtype)
        _runners[key] = permit.run if permit is not None else None
    return _runners[key]
