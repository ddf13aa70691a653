"""Prefill and decode speed beside mlx-lm and llama.cpp: resident workers, one generation of each in turn."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.rows import Row, Target
from bench.settings import Settings
from bench.worker import Worker, WorkerError

MLX_LM = "mlx-lm, float32 4-bit"
MLX_LM_OPENBLAS = "mlx-lm, float32 4-bit, OpenBLAS"
MLX_LM_FLOAT16 = "mlx-lm as it comes, float16"
LLAMA_CPP = "llama.cpp"
_FLOAT16_TOKENS = 3  # at seconds a token; the first is not counted


@dataclass
class Lane:
    """One program under measurement: its samples, or why there are none."""

    name: str
    module: str
    path: Path
    package: str = "mlx"
    environment: dict[str, str] = field(default_factory=dict)
    repeats: int | None = None  # fewer than the others: information rows
    samples: list[dict[str, Any]] = field(default_factory=list)
    why: str = ""

    def take(self, worker: Worker, ids: list[int], decode_tokens: int) -> None:
        if not self.why:
            try:
                self.samples.append(
                    worker.ask("run", path=str(self.path), ids=ids, decode_tokens=decode_tokens)
                )
            except WorkerError as error:
                self.why = str(error)

    def values(self, key: str) -> tuple[float, ...]:
        return tuple(sample[key] for sample in self.samples)


def measure(settings: Settings, say: Callable[[str], None]) -> Iterator[Row]:
    """The rows of prefill and decode."""
    lanes = {lane.name: lane for lane in _lanes(settings)}
    _take_turns(list(lanes.values()), settings, say)
    ours, theirs, llama = lanes["macllm"], lanes[MLX_LM], lanes[LLAMA_CPP]
    figure = f"prefill of {settings.prompt_tokens} tokens"

    def row(key: str, what: str, kind: str, lane: Lane, target: Target | None = None) -> Row:
        own = ours.values(kind)[: len(lane.samples)] if lane.samples else ours.values(kind)
        return Row(key, what, "tok/s", own, lane.name, lane.values(kind), target, lane.why or ours.why)

    yield row("prefill", figure, "prefill_tps", theirs, Target("ratio", at_least=20))
    yield row("prefill", figure, "prefill_tps", llama, Target("ratio", at_least=0.7))
    yield row("prefill", figure, "prefill_tps", lanes[MLX_LM_OPENBLAS])
    yield row("decode", "decode", "decode_tps", theirs, Target("ratio", at_least=2))
    yield row("decode", "decode", "decode_tps", llama)
    yield row("decode", "decode", "decode_tps", lanes[MLX_LM_OPENBLAS])
    if MLX_LM_FLOAT16 in lanes:
        yield row("decode", "decode", "decode_tps", lanes[MLX_LM_FLOAT16])


def _lanes(settings: Settings) -> list[Lane]:
    float32, float16 = settings.mlx_folder("float32"), settings.mlx_folder("float16")
    lanes = [
        Lane("macllm", "worker_macllm", settings.model),
        Lane(MLX_LM, "worker_mlx_lm", float32, "mlx_lm"),
        Lane(LLAMA_CPP, "worker_llama_cpp", settings.model, "llama_cpp"),
        Lane(MLX_LM_OPENBLAS, "worker_mlx_lm", float32, "mlx_lm", {"BENCH_OPENBLAS": "1"}, repeats=1),
    ]
    if not settings.quick:
        lanes.append(Lane(MLX_LM_FLOAT16, "worker_mlx_lm", float16, "mlx_lm", repeats=1))
    for lane in lanes:
        if importlib.util.find_spec(lane.package) is None:
            lane.why = "not installed"
    return lanes


def _take_turns(lanes: list[Lane], settings: Settings, say: Callable[[str], None]) -> None:
    """Warms each worker up, then measures A B C A B C; only one works at a time."""
    with ExitStack() as stack:
        running: list[tuple[Lane, Worker]] = []
        for lane in lanes:
            if not lane.why:
                say(f"starting {lane.name}")
                running.append((lane, stack.enter_context(_warm(lane, settings))))
        for turn in range(settings.repeats):
            for lane, worker in running:
                if turn < (lane.repeats or settings.repeats):
                    say(f"turn {turn + 1} of {settings.repeats}: {lane.name}")
                    slow = lane.name == MLX_LM_FLOAT16
                    ids = settings.prompt[:1] if slow else settings.prompt
                    lane.take(worker, ids, _FLOAT16_TOKENS if slow else settings.decode_tokens)


def _warm(lane: Lane, settings: Settings) -> Worker:
    """A worker that has loaded the model and run it once, on a short prompt where a long one takes a minute."""
    request = {"path": str(lane.path), "ids": settings.prompt[:16], "decode_tokens": 2}
    if lane.name == MLX_LM_FLOAT16:
        request |= {"ids": settings.prompt[:1], "decode_tokens": 1}
    elif lane.package != "mlx_lm":
        request["ids"] = settings.prompt
    worker = Worker(lane.module, lane.environment)
    try:
        worker.ask("run", **request)
    except WorkerError as error:
        if lane.name != LLAMA_CPP or lane.environment:
            lane.why = str(error)
            return worker
        # its repacked kernels use instructions that some virtual machines announce and then fault on
        worker.__exit__(None, None, None)
        lane.environment = {"BENCH_NO_REPACK": "1"}
        lane.name += ", not repacked"
        return _warm(lane, settings)
    return worker
