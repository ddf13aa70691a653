"""What a run is resumed from, on disk: weights that learn, the optimizer's averages, and where everything stands.

Each save is a folder ``state/step-N`` of its own that appears whole, by a rename, before the one before it goes: a
run that is killed at any moment leaves one that can be read.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.adapters.kept import STATE
from macllm.errors import CheckpointError, MacllmError
from macllm.tune.batches import Position
from macllm.tune.optimizers import Optimizer
from macllm.tune.settings import Value
from macllm.tune.trained import flat, put

FORMAT = 1
_WEIGHTS, _OPTIMIZER, _FACTS = "trainable.safetensors", "optimizer.safetensors", "run.json"
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Progress:
    """Where a run stands after ``step`` steps; ``position`` is that of the next batch.

    ``best`` is the lowest validation loss, of ``best_step``, and ``waited`` the looks without a better one since.
    ``calm`` are the last losses that were not far off, and ``astray`` the steps in a row since whose were.
    """

    position: Position
    step: int = 0
    batches: int = 0
    tokens: int = 0
    supervised: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    calm: tuple[float, ...] = ()
    astray: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Saved:
    """A save that is whole: its folder, and all of it but the tensors."""

    folder: Path
    progress: Progress
    settings: Mapping[str, Value]
    data: str  # key of the examples
    date: str
    more: Mapping[str, Any] = field(default_factory=dict)


def save(
    folder: Path, model: Module, optimizer: Optimizer, progress: Progress, identity: Mapping[str, Any]
) -> Path:
    """Keeps the run of the adapter's ``folder`` as it is; what was saved before stays until this is whole.

    ``identity``: settings, data and date as :class:`Saved` has them. Raises MacllmError where it cannot be written.
    """
    place = folder / STATE
    partial, whole = place / ".partial", place / f"step-{progress.step:08d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        mx.save_safetensors(str(partial / _WEIGHTS), flat(model))
        mx.save_safetensors(str(partial / _OPTIMIZER), optimizer.state())
        facts = {"format": FORMAT, "progress": asdict(progress), **identity}
        (partial / _FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        for name in (_WEIGHTS, _OPTIMIZER, _FACTS, "."):
            _to_disk(partial / name)
        if whole.exists():  # of a run that went on from before it
            shutil.rmtree(whole)
        partial.rename(whole)
        _to_disk(place)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise MacllmError(
            f"{whole}: the state cannot be saved ({error}); make room, then resume from the save before it"
        ) from None
    for step, other in _saves(place):
        if step != progress.step:
            shutil.rmtree(other, ignore_errors=True)
    return whole


def newest(folder: Path) -> Saved | None:
    """The last save of the adapter's ``folder``; None where there is none. Raises CheckpointError for a damaged one."""
    saves = _saves(folder / STATE)
    if not saves:
        return None
    _, place = max(saves)
    try:
        facts = json.loads((place / _FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise CheckpointError(
                f"{place}: it was saved in format {facts['format']}, and this version reads {FORMAT}; start anew"
            )
        progress = facts.pop("progress")
        position = Position(**progress.pop("position"))
        progress["calm"] = tuple(progress["calm"])
        known = {name: facts.pop(name) for name in ("settings", "data", "date")}
        return Saved(place, Progress(position, **progress), **known, more=facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{place / _FACTS}: it cannot be read ({error}); start anew") from None


def restore(saved: Saved, model: Module, optimizer: Optimizer) -> None:
    """Puts the saved weights and averages into a model that learns by the same method.

    Raises CheckpointError naming the tensor that is of another run.
    """
    file = saved.folder / _WEIGHTS
    weights, own = _tensors(file), flat(model)
    for name in {**own, **weights}:
        if name not in weights or name not in own:
            where = "is missing" if name in own else "is of no weight that learns here"
            raise CheckpointError(f"{file}: {name} {where}; resume with the base and settings of the run")
        if weights[name].shape != own[name].shape or weights[name].dtype != own[name].dtype:
            raise CheckpointError(
                f"{file}: {name} is {weights[name].dtype} {weights[name].shape} where this run asks for "
                f"{own[name].dtype} {own[name].shape}; resume with the base and settings of the run"
            )
    put(model, weights)
    file = saved.folder / _OPTIMIZER
    optimizer.restore(_tensors(file), str(file))
    mx.eval(flat(model), optimizer.state())


def _saves(place: Path) -> list[tuple[int, Path]]:
    """Every whole save by its step."""
    if not place.is_dir():
        return []
    matches = ((_STEP.fullmatch(path.name), path) for path in place.iterdir())
    return [(int(match[1]), path) for match, path in matches if match is not None]


def _tensors(file: Path) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(file))
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(f"{file}: it cannot be read ({error}); start anew") from None
    assert isinstance(loaded, dict)  # what a safetensors file gives
    return loaded


def _to_disk(path: Path) -> None:
    """Has the system write what it holds of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
