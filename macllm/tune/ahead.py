"""How far MLX may allocate ahead of what it computes: up to what a step was planned to take, and no further.

MLX gives the results of up to a hundred operations their memory before the first of them has run: on CPU hundreds of
megabytes that no step needs. Beyond its memory limit it waits for what runs instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx


@contextmanager
def allocating_within(limit: int) -> Iterator[None]:
    """While the block runs, nothing is allocated ahead beyond ``limit`` bytes in all; what is needed still is."""
    before = mx.set_memory_limit(limit)
    try:
        yield
    finally:
        mx.set_memory_limit(before)
