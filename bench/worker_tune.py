"""Measures macllm's fine-tuning: steps of a real run on rows of conversations."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import macllm  # noqa: F401  # before MLX: it puts the BLAS in place

# isort: split
import mlx.core as mx
import numpy as np

from bench.serve import serve
from macllm.adapters import files
from macllm.engine.loading import load_model
from macllm.nn.decoder import Decoder
from macllm.tune.ahead import keeping_to_plan
from macllm.tune.batches import Batches, Position
from macllm.tune.job import Job
from macllm.tune.methods import attach
from macllm.tune.optimizers import Optimizer
from macllm.tune.setup import Setup, plan_of, set_up
from macllm.tune.step import optimizer_step
from macllm.tune.trained import flat, number


class _Run:
    """A run that is stepped by hand."""

    def __init__(self, setup: Setup) -> None:
        model = load_model(setup.job.base, dtype="float32").model
        assert isinstance(model, Decoder)
        attach(model, setup.spec, setup.method, 0)
        self._setup, self._model = setup, model
        self._optimizer = Optimizer(setup.optimizer, flat(model))
        mx.eval(model.parameters(), self._optimizer.state())  # as in any step but the first
        self._batches = iter(Batches(setup.data.train, setup.batching, Position(0)))

    def steps(self, tokens: int) -> dict[str, Any]:
        """Steps over at least so many real tokens, after one that is not counted; that one alone for none."""
        checkpoint = bool(self._setup.settings["grad_checkpoint"])
        done, seconds, losses = 0, 0.0, []
        self._model.train()
        for index, batch in enumerate(islice(self._batches, 10_000)):
            start = time.perf_counter()
            outcome = optimizer_step(
                self._model,
                self._optimizer,
                [batch],
                lambda one: self._setup.objective.loss(self._model, one, checkpoint=checkpoint),
                float(self._setup.settings["learning_rate"]),
            )
            if index:
                seconds += time.perf_counter() - start
                done += batch.tokens
            losses.append(outcome.loss)
            if done >= tokens:
                break
        return {"tokens_per_s": done / seconds if seconds else 0.0, "tokens": done, "loss": losses[-1]}

    def adapt(self, folder: Path) -> None:
        """Puts another program's adapter in place of this run's."""
        files.apply(self._model, files.read(folder, self._setup.spec))

    def held_out(self) -> float:
        """The mean loss over the validation rows."""
        total, count = 0.0, 0
        self._model.eval()
        for batch in Batches(self._setup.data.valid, self._setup.batching, Position(0)).once():
            loss, tokens = self._setup.objective.loss(self._model, batch, learns=False)
            total, count = total + number(loss), count + tokens
        return total / count


_runs: dict[str, _Run] = {}


def speed(path: str, data: str, settings: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Real tokens a second of steps over ``tokens`` of them."""
    key = f"{path} {data} {settings}"
    if key not in _runs:
        _runs[key] = _Run(set_up(Job(Path(path), Path(data), Path("unused"), settings)))
    return _runs[key].steps(tokens)


def peak(path: str, data: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The peak of one step, weights included, and what the planner expects."""
    job = Job(Path(path), Path(data), Path("unused"), settings, dtype="float32")
    setup = set_up(job)
    lengths = [len(example) for example in setup.data.train]
    expected = plan_of(job, setup.settings, setup.spec, lengths, setup.objective, given=setup.settings)
    run = _Run(setup)
    mx.reset_peak_memory()
    with keeping_to_plan(expected.needed_bytes, 0):
        run.steps(0)
    return {"peak_bytes": mx.get_peak_memory(), "planned_bytes": expected.needed_bytes}


def ready(path: str, data: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Whether the rows can be learned by the model, before anything is measured."""
    setup = set_up(Job(Path(path), Path(data), Path("unused"), settings))
    return {"rows": len(setup.data.train)}


def held_out(path: str, data: str, settings: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The loss on the validation rows after ``tokens`` real tokens."""
    run = _Run(set_up(Job(Path(path), Path(data), Path("unused"), settings)))
    before = run.held_out()
    run.steps(tokens)
    return {"before": before, "loss": run.held_out()}


def held_out_of(path: str, data: str, settings: dict[str, Any], adapter: str) -> dict[str, Any]:
    """The loss on the same rows with the adapter in a folder, mlx-lm's."""
    run = _Run(set_up(Job(Path(path), Path(data), Path("unused"), settings)))
    run.adapt(Path(adapter))
    return {"loss": run.held_out()}


def dense(path: str, out: str) -> dict[str, Any]:
    """Writes the model at ``path`` with plain float32 weights, for both programs."""
    from macllm.weights.convert import convert
    from macllm.weights.plan import Target

    if not Path(out).exists():
        convert(Path(path), Path(out), Target(dequantize=True, dtype="float32"))
    return {"bytes": int(np.sum([file.stat().st_size for file in Path(out).iterdir()]))}


if __name__ == "__main__":
    asked = (peak, ready, speed, held_out, held_out_of, dense)
    serve({function.__name__: function for function in asked})
