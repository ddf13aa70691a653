"""Peak memory of a fine-tuning step beside ``mlx_lm lora``, over longer rows, and against what was planned."""

import importlib.util
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.finetune_speed import AS_IT_COMES, SHARED
from bench.rows import Row, Target
from bench.settings import Settings
from bench.worker import Worker, WorkerError

GROUP = "finetune-memory"
LENGTHS = (2048, 8192)
_ONE = {**SHARED, "batch_size": 1}
_SHORT = 512  # tokens
PLANNED: Mapping[str, Mapping[str, Any]] = {  # further settings that are measured against their plan alone
    "dora": {"method": "dora"},
    "last layers, wide": {"rank": 64, "num_layers": 8},
    "attention alone": {"targets": "attention"},
    "dropout": {"dropout": 0.1},
    "several rows": {"batch_size": 4, "max_seq_length": 128, "pack": "no"},
    "full": {"method": "full"},
    "full, computed twice": {"method": "full", "grad_checkpoint": True},
    "full, 8-bit averages": {"method": "full", "optimizer_bits": "8"},
    "full, lion": {"method": "full", "optimizer": "lion"},
}
_WORDS = ("river", "lamp", "seven", "green", "walk", "the", "of", "and", "stone", "paper")


def measure(settings: Settings, say: Callable[[str], None]) -> Iterator[Row]:
    """One row of 2,048 tokens, activations kept and computed twice; packed rows of 8,192; each in its own process."""
    model = settings.results / "models" / f"{settings.model.stem}-plain-float32"
    data = settings.results / "data" / "long"
    write_rows(data)
    try:
        with Worker("worker_tune") as worker:
            worker.ask("dense", path=str(settings.model), out=str(model))
        ours: dict[str, dict[str, Any]] = {
            name: _ours(str(model), str(data), own, say)
            for name, own in {
                "kept": {**_own(LENGTHS[0]), "pack": "no"},
                "computed twice": {**_own(LENGTHS[0]), "pack": "no", "grad_checkpoint": True},
                "packed": {**_own(LENGTHS[1]), "grad_checkpoint": True},
            }.items()
        }
        others = {
            name: _ours(str(model), str(data), {**_own(_SHORT), **own}, say, f" ({name})")
            for name, own in PLANNED.items()
        }
    except WorkerError as error:
        yield Row(GROUP, "peak memory of fine-tuning", "GB", (), why=str(error))
        return
    for name in ("kept", "computed twice"):
        theirs, why = _theirs(settings, str(model), str(data), name != "kept", say)
        figure = f"peak of a step of {LENGTHS[0]:,} tokens, activations {name}"
        peak = (ours[name]["peak_bytes"] / 1e9,)
        yield Row(GROUP, figure, "GB", peak, AS_IT_COMES, theirs, Target("ratio", at_most=0.5), why)
    # one text fills the row of 2,048, so that it is the same packed or not
    growth = (ours["packed"]["peak_bytes"] / ours["computed twice"]["peak_bytes"],)
    figure = f"growth of the peak from {LENGTHS[0]:,} to {LENGTHS[1]:,} packed tokens"
    yield Row(GROUP, figure, "x", growth, target=Target("value", at_most=4.4))
    off = {name: abs(one["planned_bytes"] / one["peak_bytes"] - 1) for name, one in (ours | others).items()}
    worst = max(off, key=off.__getitem__)
    figure = f"planned against measured, largest of {len(off)} ({worst})"
    yield Row(GROUP, figure, "off", (off[worst],), target=Target("value", at_most=0.15))


def write_rows(folder: Path) -> None:
    """Texts of 4,000 words, about as many tokens: cut to 2,048, or two in a row of 8,192."""
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "valid"):
        rows = [" ".join(chance.choices(_WORDS, k=4000)) for _ in range(4)]
        text = "".join(json.dumps({"text": row}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _own(length: int) -> dict[str, Any]:
    return {**_ONE, "max_seq_length": length, "learn": "all", "pack": "yes"}


def _ours(
    model: str, data: str, own: Mapping[str, Any], say: Callable[[str], None], which: str = ""
) -> dict[str, Any]:
    say(f"peak of a step of {own['max_seq_length']:,} tokens{which}")
    with Worker("worker_tune") as worker:  # fresh: a peak is a process's
        return worker.ask("peak", path=model, data=data, settings=dict(own))


def _theirs(
    settings: Settings, model: str, data: str, checkpoint: bool, say: Callable[[str], None]
) -> tuple[tuple[float, ...], str]:
    """In GB, or why there is none."""
    if importlib.util.find_spec("mlx_lm") is None:
        return (), "mlx-lm is not installed"
    say(f"peak of mlx-lm's step of {LENGTHS[0]:,} tokens")
    request = {"path": model, "data": data, "settings": {**_ONE, "grad_checkpoint": checkpoint}}
    try:
        with Worker("worker_tune_mlx_lm", {"BENCH_OPENBLAS": "1"}) as worker:
            out = str(settings.results / "models" / "finetune.safetensors")
            return (worker.ask("peak", **request, out=out)["peak_bytes"] / 1e9,), ""
    except WorkerError as error:
        return (), str(error)
