"""Measures ``mlx_lm lora``: its own trainer, batches and loss on the same rows."""

import json
import os
from pathlib import Path
from typing import Any

if os.environ.get("BENCH_OPENBLAS") == "1":  # by itself mlx-lm has the BLAS that MLX was built with
    from macllm import blas

    blas.preload()

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset, load_dataset
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load

from bench.serve import serve


class _Reports(TrainingCallback):
    """What the trainer says of itself."""

    def __init__(self) -> None:
        self.infos: list[dict[str, Any]] = []

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self.infos.append(dict(train_info))

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        pass


class _Run:
    def __init__(self, path: str, data: str, settings: dict[str, Any]) -> None:
        mx.random.seed(0)
        np.random.seed(0)
        self.model, tokenizer = load(path)[:2]
        self.model.freeze()
        rows = {"rank": settings["rank"], "scale": settings["scale"], "dropout": 0.0}
        linear_to_lora_layers(self.model, len(self.model.layers), rows)
        arguments = type(
            "Arguments", (), {"data": data, "train": True, "test": False, "mask_prompt": False}
        )()
        self._train, _, _ = load_dataset(arguments, tokenizer)
        self._optimizer = optim.AdamW(settings["learning_rate"], bias_correction=True)
        self._settings = settings

    def steps(self, iters: int, out: str, report: int) -> list[dict[str, Any]]:
        heard = _Reports()
        arguments = TrainingArgs(
            batch_size=self._settings["batch_size"],
            iters=iters,
            steps_per_report=report,
            steps_per_save=10**9,
            max_seq_length=self._settings["max_seq_length"],
            adapter_file=out,
            grad_checkpoint=bool(self._settings.get("grad_checkpoint")),
        )
        train(
            self.model, self._optimizer, CacheDataset(self._train), None, arguments, training_callback=heard
        )
        return heard.infos


_runs: dict[str, _Run] = {}


def speed(path: str, data: str, settings: dict[str, Any], iters: int, out: str) -> dict[str, Any]:
    """Tokens a second of ``iters`` steps, as the trainer says; the first step ever is not counted."""
    key = f"{path} {data} {settings}"
    if key not in _runs:
        _runs[key] = _Run(path, data, settings)
        _runs[key].steps(1, out, 1)
    info = _runs[key].steps(iters, out, iters)[-1]
    return {"tokens_per_s": info["tokens_per_second"], "tokens": info["trained_tokens"]}


def peak(path: str, data: str, settings: dict[str, Any], out: str) -> dict[str, Any]:
    """The peak of one step, weights included, as the trainer says."""
    run = _Run(path, data, settings)
    mx.reset_peak_memory()
    return {"peak_bytes": run.steps(1, out, 1)[-1]["peak_memory"] * 1e9}


def learn(path: str, data: str, settings: dict[str, Any], tokens: int, folder: str) -> dict[str, Any]:
    """Writes the adapter of the first report at which ``tokens`` tokens are trained."""
    run, trained = _Run(path, data, settings), 0
    Path(folder).mkdir(parents=True, exist_ok=True)
    while trained < tokens:
        trained += int(run.steps(4, f"{folder}/adapters.safetensors", 4)[-1]["trained_tokens"])
    config = {
        "fine_tune_type": "lora",
        "num_layers": len(run.model.layers),
        "lora_parameters": {"rank": settings["rank"], "scale": settings["scale"], "dropout": 0.0},
    }
    Path(folder, "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return {"tokens": trained}


if __name__ == "__main__":
    serve({"speed": speed, "peak": peak, "learn": learn})
