"""Runs over a tiny model: rows on disk, a job, and what came of it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import chatty
import mlx.core as mx
import numpy as np

from macllm.adapters.kept import STATE, WEIGHTS
from macllm.engine.training_events import TrainingEvent, TrainStep
from macllm.tune.job import Job
from macllm.tune.metrics_file import read
from macllm.tune.run import train

TIMES = ("tokens_per_s", "peak_memory_bytes", "wall_s")
QUICK = {"iters": 8, "learning_rate": 1e-2, "max_seq_length": 64, "batch_size": 2, "samples": 0}


def rows(count: int = 24) -> list[dict[str, str]]:
    return [{"prompt": f"{n} and {n}?", "completion": "ab" * (n % 5 + 1)} for n in range(count)]


def data(folder: Path, content: Iterable[Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows() if content is None else content)))
    return path


def job(folder: Path, **settings: Any) -> Job:
    """Writes the rows too, where there are none."""
    path = folder / "data.jsonl"
    path = path if path.exists() else data(folder)
    return Job(chatty.folder("endless"), path, folder / "out", {**QUICK, **settings}, dtype="float32")


def ran(one: Job, stop_after: int | None = None) -> list[TrainingEvent]:
    """All events; with ``stop_after`` the run is asked to stop after so many steps."""
    events: list[TrainingEvent] = []

    def cancelled() -> bool:
        steps = sum(isinstance(event, TrainStep) for event in events)
        return bool(events) and stop_after is not None and steps >= stop_after  # not while the rows are read

    for event in train(one, cancelled=cancelled):
        events.append(event)
    return events


def left(folder: Path) -> dict[str, Any]:
    """All that a run left, but times: its tensors and its rows."""
    found: dict[str, Any] = {}
    for file in (folder / WEIGHTS, *sorted((folder / STATE).glob("step-*/*.safetensors"))):
        found |= {
            f"{file.relative_to(folder)}:{name}": np.array(one) for name, one in mx.load(str(file)).items()
        }
    for row in read(folder):
        found |= {f"{row['step']}:{name}": value for name, value in row.items() if name not in TIMES}
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name
