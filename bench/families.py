"""Host time of a decode step of every family beside mlx-lm's class of it, on tiny models of many layers."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from bench.rows import Row, Target
from bench.settings import Settings
from bench.worker import Worker, WorkerError
from macllm.families.registry import FAMILIES
from macllm.families.tiny import tiny_config

PEER = "mlx-lm"
TARGET = Target("ratio", at_most=1.1)
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_INDICES = ("full_attn_idxs",)  # numbers of layers
_LETTERS = ("hybrid_override_pattern",)  # a letter a layer


def measure(settings: Settings, say: Callable[[str], None]) -> Iterator[Row]:
    """A row a family, and one more of the one with the largest ratio."""
    names = sorted(settings.families or FAMILIES)
    rows = []
    workers: dict[str, Worker] = {}
    with ExitStack() as running:
        for number, name in enumerate(names, 1):
            say(f"host time of a step, {name} ({number} of {len(names)})")
            for module in ("worker_macllm", "worker_mlx_lm"):
                if module not in workers or not workers[module].alive:  # one model may end its process
                    workers[module] = running.enter_context(Worker(module))
            rows.append(_row(name, settings, workers["worker_macllm"], workers["worker_mlx_lm"]))
            yield rows[-1]
    compared = {row.ratio: row for row in rows if row.ratio is not None}
    if compared:
        worst = compared[max(compared)]
        yield replace(worst, figure=f"largest of {len(compared)}: {worst.figure}")


def _row(name: str, settings: Settings, macllm: Worker, mlx_lm: Worker) -> Row:
    folder = settings.results / "models" / f"{name}-{settings.family_layers}"
    request = {"path": str(folder), "steps": settings.host_steps}
    ours: list[float] = []
    theirs: list[float] = []
    why = "" if importlib.util.find_spec("mlx_lm") is not None else "not installed"
    try:
        config = deepened(tiny_config(name), settings.family_layers)
        macllm.ask("write_random", path=str(folder), config=config)
        for _ in range(settings.repeats):
            ours.append(macllm.ask("model_host", **request)["host_us"] / 1e3)
            if not why:
                try:
                    theirs.append(mlx_lm.ask("model_host", **request)["host_us"] / 1e3)
                except WorkerError as error:  # no class for it, or one that cannot read the model
                    why = str(error)
    except KeyError:
        why = "no tiny config"
    except WorkerError as error:
        ours, why = [], str(error)
    return Row("families", f"host time a step, {name}", "ms", tuple(ours), PEER, tuple(theirs), TARGET, why)


def deepened(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """A config of at least so many layers: its own, over and over."""
    key = next(key for key in _COUNTS if key in config)
    own = config[key]
    times = -(-layers // own)
    deep = {**config, key: own * times}
    for name, value in config.items():
        if name in _INDICES:
            deep[name] = [index + own * turn for turn in range(times) for index in value]
        elif name in _LETTERS or (isinstance(value, list) and len(value) == own):  # an entry a layer
            deep[name] = value * times
    return deep
