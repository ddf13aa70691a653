"""How far MLX may allocate ahead of what it computes: up to what a step was planned to take, and no further.

MLX gives the results of up to a hundred operations their memory before the first of them has run: on CPU hundreds of
megabytes that no step needs. Beyond its memory limit it waits for what runs instead.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import mlx.core as mx

_LEAST = 3 * 10**8  # bytes: below this nobody misses what is allocated ahead


def keeping_to_plan(planned: int, others: int) -> AbstractContextManager[None]:
    """Of a run that is planned to take so many bytes, beside ``others`` that the process has had before it.

    On CPU alone: a GPU's queue is short, and to wait for it would cost speed wherever the plan is a little low.
    """
    if mx.default_device() == mx.gpu:
        return nullcontext()
    return allocating_within(others + max(planned, _LEAST))


@contextmanager
def allocating_within(limit: int) -> Iterator[None]:
    """While the block runs, nothing is allocated ahead beyond ``limit`` bytes in all; what is needed still is."""
    before = mx.set_memory_limit(limit)
    try:
        yield
    finally:
        mx.set_memory_limit(before)
