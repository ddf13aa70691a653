"""Measures one generation. The only clock in the product: screens and benchmarks show what this one saw."""

import bisect
import math
import statistics
import time
from collections.abc import Sequence

import mlx.core as mx

from macllm.backend import Backend, memory_pressure
from macllm.engine.metrics import Metrics
from macllm.nn.cache import Cache
from macllm.nn.kv_cache import EveryToken, LastTokens

RECENT_STEPS = 32


class Meter:
    """Takes the times of a generation and makes its :class:`Metrics`.

    ``submitted`` is the ``time.perf_counter()`` at which the request was received; without it, now.
    """

    def __init__(
        self,
        backend: Backend,
        load_s: float,
        prompt_tokens: int,
        max_context: int = 0,
        submitted: float | None = None,
    ) -> None:
        self._backend = backend
        self._load_s = load_s
        self._prompt_tokens = prompt_tokens
        self._max_context = max_context
        self._began = time.perf_counter()
        self._submitted = submitted if submitted is not None else self._began
        self._prefilled: float | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._steps: list[float] = []
        self._ordered: list[float] = []  # the same by length: percentiles are asked for many times
        self._told = 0  # steps already given by new_steps_ms
        self._thinking_tokens = 0
        self._thinking_s = 0.0
        self.reused = 0
        self.computed = 0  # prompt tokens, so far
        self.tokens = 0

    def prefilled(self, at: float | None = None) -> None:
        """All of the prompt is computed (``at`` this moment, or now)."""
        if self._prefilled is None:
            self._prefilled = at if at is not None else time.perf_counter()
            self.computed = self._prompt_tokens - self.reused

    def token(self) -> None:
        """A token was read."""
        now = time.perf_counter()
        self.prefilled(now)
        if self._last is None:
            self._first = now
        else:
            self._steps.append(now - self._last)
            bisect.insort(self._ordered, self._steps[-1])
        self._last = now
        self.tokens += 1

    def thought(self) -> None:
        """The token just read is part of a thought or one of its marks."""
        self._thinking_tokens += 1
        if self._steps:
            self._thinking_s += self._steps[-1]

    def new_steps_ms(self) -> tuple[float, ...]:
        """The step times since this was last asked."""
        steps = tuple(step * 1e3 for step in self._steps[self._told :])
        self._told = len(self._steps)
        return steps

    def metrics(self, caches: Sequence[Cache] = ()) -> Metrics:
        """The figures so far."""
        prefilled = self._prefilled if self._prefilled is not None else time.perf_counter()
        prefill_s = prefilled - self._began
        decode_s = sum(self._steps)
        kinds = kv_by_kind(caches)
        return Metrics(
            load_s=self._load_s,
            prompt_tokens=self._prompt_tokens,
            reused_tokens=self.reused,
            prefill_s=prefill_s,
            prefill_tps=self.computed / prefill_s if prefill_s > 0 else 0.0,
            ttft_s=self._first - self._submitted if self._first is not None else 0.0,
            decode_tokens=self.tokens,
            decode_s=decode_s,
            decode_tps=len(self._steps) / decode_s if decode_s > 0 else 0.0,
            recent_tps=median_rate(self._steps[-RECENT_STEPS:]),
            step_ms_p50=percentile(self._ordered, 50) * 1e3,
            step_ms_p99=percentile(self._ordered, 99) * 1e3,
            thinking_tokens=self._thinking_tokens,
            thinking_s=self._thinking_s,
            context_tokens=self._prompt_tokens + self.tokens,
            max_context=self._max_context,
            memory_bytes=mx.get_active_memory(),
            peak_memory_bytes=mx.get_peak_memory(),
            memory_limit_bytes=self._backend.memory_limit_bytes,
            memory_pressure=memory_pressure(),
            kv_bytes=sum(kinds.values()),
            kv_by_kind=kinds,
            dtype=self._backend.dtype,
            backend=self._backend.name,
        )


def kv_by_kind(caches: Sequence[Cache]) -> dict[str, int]:
    """Bytes of keys and values in view by the kind of cache; ``other`` are those of mlx-lm's classes."""
    kinds: dict[str, int] = {}
    for cache in caches:
        sliding = "sliding" if isinstance(cache, LastTokens) else "other"
        kind = "full" if isinstance(cache, EveryToken) else sliding
        kinds[kind] = kinds.get(kind, 0) + cache.nbytes
    return kinds


def median_rate(steps: Sequence[float]) -> float:
    """The median of the steps' rates, one token a step; 0 of nothing."""
    rates = [1 / step for step in steps if step > 0]
    return statistics.median(rates) if rates else 0.0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order; 0 of nothing."""
    if not ordered:
        return 0.0
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]
