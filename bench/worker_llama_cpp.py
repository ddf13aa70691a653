"""Measures llama.cpp through llama-cpp-python: one evaluation of the prompt, then one a token."""

import os
import time
from typing import Any

import llama_cpp

from bench.serve import serve

_models: dict[str, llama_cpp.Llama] = {}


def run(path: str, ids: list[int], decode_tokens: int) -> dict[str, Any]:
    """One greedy generation: prefill up to the first token, decoding after it."""
    model = _load(path, len(ids) + decode_tokens)
    model.reset()
    start = time.perf_counter()
    model.eval(ids)
    token = model.sample(temp=0.0)
    first = time.perf_counter()
    for _ in range(decode_tokens - 1):
        model.eval([token])
        token = model.sample(temp=0.0)
    decode_s = time.perf_counter() - first
    return {
        "prefill_tps": len(ids) / (first - start),
        "decode_tps": (decode_tokens - 1) / decode_s if decode_tokens > 1 else 0.0,
    }


def _load(path: str, context: int) -> llama_cpp.Llama:
    if path not in _models:
        cores = os.cpu_count() or 1
        if os.environ.get("BENCH_NO_REPACK") == "1":
            _switch_repacking_off()
        _models[path] = llama_cpp.Llama(
            path, n_ctx=context + 8, n_batch=512, n_threads=cores, n_threads_batch=cores, verbose=False
        )
    return _models[path]


def _switch_repacking_off() -> None:
    """Leaves weights in the file's layout: the others need instructions that some virtual machines fault on."""
    library = llama_cpp.llama_cpp
    defaults = library.llama_model_default_params

    def without() -> Any:
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    library.llama_model_default_params = without


if __name__ == "__main__":
    serve({"run": run})
