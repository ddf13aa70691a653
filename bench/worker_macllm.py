"""Measures macllm: generation by the engine's own metrics, host time of a step, memory of a load."""

import importlib
import platform
import resource
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import macllm  # noqa: F401  # before MLX: it puts the BLAS in place

# isort: split
import mlx.core as mx
from mlx.utils import tree_flatten

from bench.serve import serve
from macllm import backend
from macllm.engine.benchmark import random_prompt
from macllm.engine.events import Done
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded, load_model
from macllm.engine.processors import Processors
from macllm.engine.request import Limits, Sampling
from macllm.engine.sampler import Sampler
from macllm.engine.session import Session
from macllm.kernels import dispatch
from macllm.nn.decoder import Decoder
from macllm.nn.stored import DTYPES
from macllm.quantization import Quantization
from macllm.weights.model_files import open_model
from macllm.weights.parameters import CheckpointParameters, Placement

LOADING = (
    "numpy",
    "tokenizers",
    "macllm.weights.gguf_checkpoint",
    "macllm.weights.gguf.config",
    "macllm.tokenizer.gguf",
)
SAMPLE_EVERY_S = 0.003
LINUX = platform.system() == "Linux"

_models: dict[str, Loaded] = {}


def run(path: str, ids: list[int], decode_tokens: int) -> dict[str, Any]:
    """One generation from an empty cache: the engine's metrics."""
    loaded = _load(path)
    options = Options(limits=Limits(max_tokens=decode_tokens, ignore_eos=True))
    *_, done = generate(loaded, Session(loaded.model), ids, options)
    assert isinstance(done, Done)
    return done.metrics.as_dict()


def host(path: str, steps: int) -> dict[str, Any]:
    """The Python time of a decode step up to the token that nobody has computed yet: what the engine does a step."""
    loaded = _load(path)
    session, sampling = Session(loaded.model), Sampling()
    prompt = random_prompt(loaded.vocab, 16)
    for _ in generate(loaded, session, prompt, Options(limits=Limits(max_tokens=1))):
        pass
    processors, sampler = Processors(sampling, loaded.vocab, ()), Sampler(sampling)
    history, token = processors.start(prompt), mx.array([prompt[0]])
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        history = history.append(token)
        hidden = loaded.model.hidden(token[None], session.caches)
        token = sampler(processors(loaded.model.logits(hidden)[:, -1], history))
        times.append(time.perf_counter() - start)
        mx.eval(token)
    return {"host_us": statistics.median(times) * 1e6}


def model_host(path: str, steps: int) -> dict[str, Any]:
    """The Python time of the model alone in a decode step after 16 tokens, up to logits that nobody has computed.

    Of the fastest step: others only add to it.
    """
    model = _load(path).model
    caches = model.make_caches()
    mx.eval(model.logits(model.hidden(mx.array([list(range(16))]), caches)))
    token = mx.array([[0]])
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        logits = model.logits(model.hidden(token, caches))
        times.append(time.perf_counter() - start)
        mx.eval(logits)
    return {"host_us": min(times) * 1e6}


def load_peak(path: str, packed: bool) -> dict[str, Any]:
    """Bytes kept of a load, and the peaks on the way: of MLX's arrays, and of the process's growth.

    ``packed`` keeps quantized matrices so, whatever the placement would say here. For a fresh process.
    """
    here = backend.current()
    for module in LOADING:  # imported on first use: part of a process, not of a load
        importlib.import_module(module)
    with ProcessGrowth() as growth:
        if packed:
            files, dtype = open_model(Path(path)), DTYPES[here.dtype]
            parameters = CheckpointParameters(
                files.spec, files.checkpoint(dtype), files.naming, Placement(dtype)
            )
            model: Any = Decoder(files.spec, parameters)
        else:
            model = load_model(Path(path)).model
    kept = sum(int(array.nbytes) for array in dict(tree_flatten(model.parameters())).values())
    return {
        "kept_bytes": kept,
        "mlx_peak_bytes": mx.get_peak_memory(),
        "process_growth_bytes": growth.peak_bytes,
    }


def packed_bits(outputs: int, inputs: int) -> dict[str, float]:
    """Bits that a weight of a random matrix takes as QLoRA's base, NF4 with double quantization, all arrays counted."""
    q = Quantization(4, 64, "nf4")
    weight, *scales = dispatch.pack(q, mx.random.normal((outputs, inputs)))
    mx.eval(weight, scales)
    return {"bits": 8 * sum(array.nbytes for array in (weight, *scales)) / (outputs * inputs)}


def write_tiny(path: str, layers: int, width: int) -> dict[str, Any]:
    """Writes a random float32 Llama: many layers, so thin that nearly all of a step is the host's."""
    from bench.models import write_tiny_model

    write_tiny_model(Path(path), layers, width)
    return {}


def write_random(path: str, config: dict[str, Any]) -> dict[str, Any]:
    """Writes a random float32 model of any family."""
    from bench.models import write_random_model

    write_random_model(Path(path), config)
    return {}


def write_same_weights(source: str, path: str, dtype: str) -> dict[str, Any]:
    """Writes a GGUF's weights, exactly repacked, as the folder that mlx-lm loads."""
    from bench.models import write_mlx_folder

    write_mlx_folder(Path(source), Path(path), dtype)
    return {}


def _load(path: str) -> Loaded:
    if path not in _models:
        _models[path] = load_model(Path(path))
    return _models[path]


class ProcessGrowth:
    """The most that this process's own memory grew inside the ``with`` block.

    On Linux that of pages without a file behind them, looked at every few milliseconds: a mapped file's pages
    are the system's to take back. Elsewhere the system's own peak of everything.
    """

    def __enter__(self) -> "ProcessGrowth":
        self.peak_bytes = 0
        self._start = _own_bytes()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(SAMPLE_EVERY_S)
            self.peak_bytes = max(self.peak_bytes, _own_bytes() - self._start)


def _own_bytes() -> int:
    if not LINUX:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    serve({
        "run": run,
        "host": host,
        "model_host": model_host,
        "load_peak": load_peak,
        "packed_bits": packed_bits,
        "write_tiny": write_tiny,
        "write_random": write_random,
        "write_same_weights": write_same_weights,
    })  # fmt: skip
