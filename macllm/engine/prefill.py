"""How a prompt is cut into steps, and how one step is given up half-way."""

from collections.abc import Callable

import mlx.core as mx

from macllm.engine.session import Session

CPU_CHUNK, GPU_CHUNK = 256, 2048  # prompt tokens a step
UNWATCHED_CHUNK = 512  # at most, where a step that may be cancelled cannot be given up half-way
SHORT_CHUNK = 32  # up to here a step takes little longer than one of decoding


class Cancelled(Exception):
    """A step was given up between two of its layers."""


class LayerWatch:
    """Runs a step layer by layer, so that it can be given up in between.

    A decoder calls it with the output of each layer but the last. The device is given that layer at once, and
    waited for the one before: it always has work while Python prepares the next.
    """

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled
        self._running: mx.array | None = None

    def __call__(self, states: mx.array) -> None:
        """Takes states (..., B, L, D), of several streams where a model has them. Raises Cancelled."""
        end = states[(0,) * (states.ndim - 2) + (-1, slice(1))]  # evaluating it evaluates the layer
        mx.async_eval(end)
        if self._running is not None:
            # item waits for this layer alone; mx.eval would wait for all that was dispatched
            self._running.item()
        self._running = end
        if self._cancelled():
            raise Cancelled


def chunk_size(backend: str, *, watched: bool, layered: bool) -> int:
    """Prompt tokens a step: of all the device can use, less where only a whole step can be cancelled."""
    chunk = CPU_CHUNK if backend == "cpu" else GPU_CHUNK
    return min(chunk, UNWATCHED_CHUNK) if watched and not layered else chunk


def take_back(session: Session) -> None:
    """After a step was given up: every cache drops what ``session.tokens`` does not have, or all start anew."""
    for cache in session.caches:
        surplus = cache.offset - len(session.tokens)
        if not 0 <= surplus <= cache.rewindable():  # less, where it was being filled anew
            session.reset()
            return
        cache.rewind(surplus)
