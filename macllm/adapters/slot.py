"""The one place for something learned beside a model that answers, which is changed without a reload."""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from macllm.adapters.files import PEFT_WEIGHTS, Adapter, apply, read
from macllm.adapters.folder import read_config
from macllm.adapters.full import put_full, read_full
from macllm.adapters.kept import CONFIG, WEIGHTS
from macllm.nn.beside import restore
from macllm.nn.decoder import Decoder
from macllm.nn.settled import settle
from macllm.nn.stored import Dense
from macllm.spec import ModelSpec


@dataclass(frozen=True)
class Learned:
    """What a folder holds, checked: an adapter, or weights by canonical name. ``stamp`` tells it from others."""

    folder: Path
    stamp: str
    content: Adapter | dict[str, mx.array]


def read_learned(folder: Path, spec: ModelSpec) -> Learned:
    """What was learned beside a model of this spec: mlx-lm's or PEFT's adapter, or weights of full fine-tuning.

    Raises ConfigError or CheckpointError: one sentence, also where it belongs to another base.
    """
    full = read_config(folder).get("fine_tune_type") == "full"
    stamp = stamp_of(folder)  # before: what is written meanwhile is another one
    return Learned(folder, stamp, read_full(folder, spec) if full else read(folder, spec))


def stamp_of(folder: Path) -> str:
    """Tells an adapter from others, also from what is saved in the same folder later."""
    parts = [str(folder)]
    for name in (CONFIG, WEIGHTS, PEFT_WEIGHTS):
        file = folder / name
        if file.is_file():
            found = file.stat()
            parts.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return "\n".join(parts)


class Slot:
    """Holds at most one thing that was learned. With another, the model's caches so far are worth nothing."""

    def __init__(self, model: Decoder, dtype: mx.Dtype) -> None:
        """``dtype``: what the model computes in."""
        self._model, self._dtype = model, dtype
        self._own: dict[str, mx.array] = {}  # the model's weights that others have taken the place of
        self.folder: Path | None = None

    def use(self, learned: Learned | None) -> None:
        """Has the model answer with this, in place of what it had; None: alone.

        Raises CheckpointError, and leaves all as it was, where the model is packed and weights are to be replaced.
        """
        model = self._model
        if learned is not None and not isinstance(learned.content, Adapter):
            self._put(learned.content, learned.folder)
        else:
            self._take_out()
            if learned is not None:
                assert isinstance(learned.content, Adapter)
                apply(model, learned.content)
                settle(model, self._dtype)
        mx.eval(model.parameters())
        self.folder = learned.folder if learned is not None else None
        model.learned = learned.stamp if learned is not None else ""

    def _put(self, weights: dict[str, mx.array], folder: Path) -> None:
        stored = dict(self._model.tensors())
        now = {name: one.array for name in weights if isinstance(one := stored[name], Dense)}
        put_full(self._model, {**self._own, **weights}, folder / WEIGHTS)
        restore(self._model)
        self._own = {**now, **{name: own for name, own in self._own.items() if name in weights}}

    def _take_out(self) -> None:
        restore(self._model)
        put_full(self._model, self._own, Path())
        self._own = {}
