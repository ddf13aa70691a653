"""Fine-tuning beside ``mlx_lm lora``: the same model, conversations, settings and type; its own trainer and batches."""

import importlib.util
import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.rows import Row, Target
from bench.settings import Settings
from bench.worker import Worker, WorkerError

AS_IT_COMES = "mlx_lm lora, float32"
OPENBLAS = "mlx_lm lora, float32, OpenBLAS"
SHARED = {"rank": 8, "scale": 20.0, "learning_rate": 1e-4, "batch_size": 4, "max_seq_length": 2048}
APART = {**SHARED, "learn": "all", "pack": "no"}
PACKED = {**SHARED, "learn": "all", "pack": "yes", "batch_size": 1}
ROWS, VALID_ROWS, TURNS = 500, 60, 4
_STEPS_AS_IT_COMES = 1  # of the reference BLAS, a minute each


def measure(settings: Settings, say: Callable[[str], None]) -> Iterator[Row]:
    """Speed packed and not, and the loss on rows that were not learned after as many tokens."""
    why = "" if importlib.util.find_spec("mlx_lm") is not None else "mlx-lm is not installed"
    data = settings.results / "data" / "chitchat"
    if importlib.util.find_spec("chitchat_dataset") is None:
        yield Row("finetune-speed", "fine-tuning", "", (), why="chitchat-dataset is not installed")
        return
    write_rows(data)
    model = settings.results / "models" / f"{settings.model.stem}-plain-float32"
    try:
        with Worker("worker_tune") as worker:
            worker.ask("dense", path=str(settings.model), out=str(model))
            worker.ask("ready", path=str(model), data=str(data), settings=APART)
    except WorkerError as error:
        yield Row("finetune-speed", "fine-tuning", "", (), why=str(error))
        return
    yield from _speed(settings, say, str(model), str(data), why)
    yield _loss(settings, say, str(model), str(data), why)


def write_rows(folder: Path) -> None:
    """Conversations of the package, the same every time; whose turns alternate."""
    from chitchat_dataset import Dataset

    rows = []
    for conversation in Dataset().values():
        turns = [" ".join(part["text"].strip() for part in block) for block in conversation["messages"]]
        turns = [turn for turn in turns if turn.strip()]
        turns = turns[: min(len(turns), TURNS) // 2 * 2]
        roles = ("user", "assistant")
        messages = [{"role": roles[index % 2], "content": turn} for index, turn in enumerate(turns)]
        rows += [{"messages": messages}] if messages else []
    random.Random(0).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": rows[:ROWS], "valid": rows[ROWS : ROWS + VALID_ROWS]}
    for name, part in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _speed(settings: Settings, say: Callable[[str], None], model: str, data: str, why: str) -> Iterator[Row]:
    tokens = 300 if settings.quick else 4000
    samples: dict[str, list[float]] = {"packed": [], "apart": [], AS_IT_COMES: [], OPENBLAS: []}
    failed = {AS_IT_COMES: why, OPENBLAS: why}
    out = str(settings.results / "models" / "finetune.safetensors")
    with ExitStack() as running:
        ours = running.enter_context(Worker("worker_tune"))
        theirs = {
            AS_IT_COMES: running.enter_context(Worker("worker_tune_mlx_lm")),
            OPENBLAS: running.enter_context(Worker("worker_tune_mlx_lm", {"BENCH_OPENBLAS": "1"})),
        }
        for turn in range(settings.repeats):
            say(f"fine-tuning, tokens a second ({turn + 1} of {settings.repeats})")
            for name, own in (("packed", PACKED), ("apart", APART)):
                found = ours.ask("speed", path=model, data=data, settings=own, tokens=tokens)
                samples[name].append(found["tokens_per_s"])
            for name, worker in theirs.items():
                iters = _STEPS_AS_IT_COMES if name == AS_IT_COMES or settings.quick else 8
                request: dict[str, Any] = {"settings": SHARED, "iters": iters, "out": out}
                try:
                    if not failed[name]:
                        found = worker.ask("speed", path=model, data=data, **request)
                        samples[name].append(found["tokens_per_s"])
                except WorkerError as error:
                    failed[name] = str(error)

    def row(figure: str, own: str, peer: str, target: Target | None) -> Row:
        theirs = tuple(samples[peer])
        return Row("finetune-speed", figure, "tok/s", tuple(samples[own]), peer, theirs, target, failed[peer])

    yield row("fine-tuning, packed", "packed", AS_IT_COMES, Target("ratio", at_least=3))
    yield row("fine-tuning, packed", "packed", OPENBLAS, None)
    yield row("fine-tuning, not packed", "apart", OPENBLAS, Target("ratio", at_least=1.15))


def _loss(settings: Settings, say: Callable[[str], None], model: str, data: str, why: str) -> Row:
    tokens = 600 if settings.quick else 20_000
    say(f"loss on other rows after {tokens} tokens")
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    folder = settings.results / "models" / "finetune-mlx-lm"
    request = {"path": model, "data": data}
    try:
        with Worker("worker_tune") as worker:
            own = worker.ask("held_out", **request, settings=APART, tokens=tokens)
            ours = (own["loss"],)
        if not why:
            with Worker("worker_tune_mlx_lm", {"BENCH_OPENBLAS": "1"}) as worker:
                worker.ask("learn", **request, settings=SHARED, tokens=tokens, folder=str(folder))
            with Worker("worker_tune") as worker:
                found = worker.ask("held_out_of", **request, settings=APART, adapter=str(folder))
                theirs = (found["loss"],)
    except WorkerError as error:
        why = str(error)
    figure = f"loss on other rows after {tokens:,} tokens"
    return Row("finetune-speed", figure, "nats", ours, OPENBLAS, theirs, Target("ratio", at_most=1.0), why)
