"""Measures a loaded model with the engine's own figures: random prompts, greedy decoding past stop tokens."""

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from macllm.engine.events import Done
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded
from macllm.engine.metrics import Metrics
from macllm.engine.request import Limits
from macllm.engine.session import Session
from macllm.errors import ContextError

_WARM_UP_TOKENS = 2  # the second is the first of a decode step


@dataclass(frozen=True)
class Benchmark:
    """What is measured: tokens of the prompt, tokens decoded after it, and how often."""

    prompt_tokens: int = 512
    decode_tokens: int = 64
    repeats: int = 3

    @property
    def mean_context(self) -> int:
        """Tokens in the cache halfway through decoding."""
        return self.prompt_tokens + self.decode_tokens // 2


@dataclass(frozen=True)
class Summary:
    """Medians over the runs; ``peak_memory_bytes`` is the most of all, loading included."""

    load_s: float
    prefill_tps: float
    ttft_s: float
    decode_tps: float
    step_ms_p50: float
    step_ms_p99: float
    peak_memory_bytes: int
    kv_bytes: int
    dtype: str
    backend: str

    def as_dict(self) -> dict[str, Any]:
        """The figures as a JSON-ready mapping."""
        return asdict(self)


def measure(loaded: Loaded, benchmark: Benchmark) -> Iterator[Metrics]:
    """Yields the metrics of each run, after one that is not counted.

    Every run starts from an empty cache with the same random prompt. Raises ContextError where prompt and
    decoded tokens do not fit the model's context.
    """
    needed = benchmark.prompt_tokens + benchmark.decode_tokens
    if needed > loaded.max_context:
        raise ContextError(
            f"{benchmark.prompt_tokens} prompt tokens and {benchmark.decode_tokens} more need a context of {needed}, "
            f"and that of {loaded.name} holds {loaded.max_context}; measure with fewer"
        )
    prompt = random_prompt(loaded.vocab, benchmark.prompt_tokens)
    _run(loaded, prompt, min(benchmark.decode_tokens, _WARM_UP_TOKENS))
    for _ in range(benchmark.repeats):
        yield _run(loaded, prompt, benchmark.decode_tokens)


def summarize(runs: Sequence[Metrics]) -> Summary:
    """The medians of at least one run."""
    last = runs[-1]
    return Summary(
        load_s=last.load_s,
        prefill_tps=statistics.median(run.prefill_tps for run in runs),
        ttft_s=statistics.median(run.ttft_s for run in runs),
        decode_tps=statistics.median(run.decode_tps for run in runs),
        step_ms_p50=statistics.median(run.step_ms_p50 for run in runs),
        step_ms_p99=statistics.median(run.step_ms_p99 for run in runs),
        peak_memory_bytes=max(run.peak_memory_bytes for run in runs),
        kv_bytes=last.kv_bytes,
        dtype=last.dtype,
        backend=last.backend,
    )


def random_prompt(vocab: int, length: int, seed: int = 0) -> list[int]:
    """``length`` ids of a vocabulary; the same for the same seed, whatever runs them."""
    generator = random.Random(seed)
    return [generator.randrange(vocab) for _ in range(length)]


def _run(loaded: Loaded, prompt: Sequence[int], decode_tokens: int) -> Metrics:
    options = Options(limits=Limits(max_tokens=decode_tokens, ignore_eos=True))
    *_, done = generate(loaded, Session(loaded.model), prompt, options)
    assert isinstance(done, Done)
    return done.metrics
