"""Measures mlx-lm by its own ``generate_step``, with the definitions of its own figures."""

import os
import statistics
import time
from pathlib import Path
from typing import Any

if os.environ.get("BENCH_OPENBLAS") == "1":  # by itself mlx-lm has the BLAS that MLX was built with
    from macllm import blas

    blas.preload()

import mlx.core as mx
from mlx_lm.generate import generate_step, generation_stream, greedy_sampler
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from bench.serve import serve

_models: dict[str, Any] = {}


def run(path: str, ids: list[int], decode_tokens: int) -> dict[str, Any]:
    """One greedy generation: prefill up to the first token, decoding after it."""
    model = _load(path)
    start = time.perf_counter()
    first = last = start
    count = 0
    for _ in generate_step(mx.array(ids), model, max_tokens=decode_tokens):
        last = time.perf_counter()
        count += 1
        if count == 1:
            first = last
    decode_s = last - first
    return {
        "prefill_tps": len(ids) / (first - start),
        "decode_tps": (count - 1) / decode_s if count > 1 else 0.0,
    }


def host(path: str, steps: int) -> dict[str, Any]:
    """The Python time of a decode step up to the token that nobody has computed yet, as in ``generate_step``."""
    model = _load(path)
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([list(range(16))]), cache=cache))
    token = mx.array([0])
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        with mx.stream(generation_stream):
            logits = model(token[None], cache=cache)[:, -1, :]
            logprobs = logits - mx.logsumexp(logits, keepdims=True)
            token = greedy_sampler(logprobs)
            chosen = logprobs.squeeze(0)
        times.append(time.perf_counter() - start)
        mx.eval(token, chosen)
    return {"host_us": statistics.median(times) * 1e6}


def model_host(path: str, steps: int) -> dict[str, Any]:
    """The Python time of the model alone in a decode step after 16 tokens, up to logits that nobody has computed.

    Of the fastest step: others only add to it.
    """
    model = _load(path)
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([list(range(16))]), cache=cache))
    token = mx.array([[0]])
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        logits = model(token, cache=cache)
        times.append(time.perf_counter() - start)
        mx.eval(logits)
    return {"host_us": min(times) * 1e6}


def _load(path: str) -> Any:
    if path not in _models:
        _models[path] = load_model(Path(path))[0]
    return _models[path]


if __name__ == "__main__":
    serve({"run": run, "host": host, "model_host": model_host})
