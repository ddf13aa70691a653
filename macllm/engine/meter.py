"""Measures one generation. The only clock in the product: screens and benchmarks show what this one saw."""

import math
import time
from collections.abc import Sequence

import mlx.core as mx

from macllm.backend import Backend
from macllm.engine.metrics import Metrics


class Meter:
    """Takes the times of a generation and makes its :class:`Metrics`."""

    def __init__(self, backend: Backend, load_s: float, prompt_tokens: int) -> None:
        self._backend = backend
        self._load_s = load_s
        self._prompt_tokens = prompt_tokens
        self._submitted = time.perf_counter()
        self._prefilled: float | None = None
        self._last: float | None = None
        self._steps: list[float] = []
        self.reused = 0
        self.tokens = 0
        self.kv_bytes = 0

    def prefilled(self) -> None:
        """All of the prompt is computed."""
        if self._prefilled is None:
            self._prefilled = time.perf_counter()

    def token(self) -> None:
        """A token was read."""
        now = time.perf_counter()
        self.prefilled()
        if self._last is not None:
            self._steps.append(now - self._last)
        self._last = now
        self.tokens += 1

    def metrics(self) -> Metrics:
        """The figures so far."""
        prefilled = self._prefilled if self._prefilled is not None else time.perf_counter()
        prefill_s = prefilled - self._submitted
        decode_s = sum(self._steps)
        return Metrics(
            load_s=self._load_s,
            prompt_tokens=self._prompt_tokens,
            reused_tokens=self.reused,
            prefill_s=prefill_s,
            prefill_tps=(self._prompt_tokens - self.reused) / prefill_s if prefill_s > 0 else 0.0,
            ttft_s=prefill_s if self.tokens else 0.0,
            decode_tokens=self.tokens,
            decode_s=decode_s,
            decode_tps=len(self._steps) / decode_s if decode_s > 0 else 0.0,
            step_ms_p50=percentile(self._steps, 50) * 1e3,
            step_ms_p99=percentile(self._steps, 99) * 1e3,
            memory_bytes=mx.get_active_memory(),
            peak_memory_bytes=mx.get_peak_memory(),
            memory_limit_bytes=self._backend.memory_limit_bytes,
            kv_bytes=self.kv_bytes,
            dtype=self._backend.dtype,
            backend=self._backend.name,
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]
