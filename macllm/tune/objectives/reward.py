"""A reward model: one number for a whole answer, higher for what is chosen (Bradley-Terry, arXiv 2009.01325).

The number is a scalar head's, of the last token's state. The head learns beside the adapter and is kept beside it, in
a file of its own: what reads adapters, here and elsewhere, knows none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import mlx.core as mx
import numpy as np

from macllm.adapters.folder import read_tensors
from macllm.errors import CheckpointError, MacllmError
from macllm.nn.decoder import Decoder
from macllm.nn.scalar_head import NAME, ScalarHead
from macllm.tune.batches import Batch
from macllm.tune.forward import hidden
from macllm.tune.objective import Objective
from macllm.tune.objectives.preference import reward_figures, softplus

HEAD = "reward_head.safetensors"
_TENSOR = "score.weight"  # (1, D), as Hugging Face's sequence classifiers name it


class BradleyTerry(Objective):
    """``-log sigmoid`` of how much higher the reward of what is chosen is; each pair counts one."""

    together: ClassVar[int] = 2
    packs: ClassVar[bool] = False

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def equip(self, model: Decoder) -> None:
        model[NAME] = ScalarHead.first(model.spec.dim, self._seed)

    def save(self, model: Decoder, folder: Path) -> None:
        """Writes the head; the one before stays until it is whole."""
        partial = folder / f".partial-{HEAD}"
        try:
            mx.save_safetensors(str(partial), {_TENSOR: model[NAME].weight[None]})
            partial.replace(folder / HEAD)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise MacllmError(
                f"{folder / HEAD}: the head cannot be written ({error}); make room, or name another folder"
            ) from None

    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        found = rewards(model, batch, checkpoint=checkpoint)
        losses = softplus(found[1::2] - found[::2])
        return losses.sum(), losses.size

    def figures(self, model: Decoder, batch: Batch) -> Mapping[str, tuple[float, int]]:
        """As those of a preference, of the rewards themselves."""
        found = np.array(rewards(model, batch), np.float64)
        return reward_figures(found[::2], found[1::2])


def rewards(model: Decoder, batch: Batch, *, checkpoint: bool = False) -> mx.array:
    """The numbers (B,), float32, that a model with a head has for its rows of one example each."""
    states = hidden(model, mx.array(batch.ids), checkpoint=checkpoint)  # (B, L, D)
    last = np.count_nonzero(batch.segments, axis=1) - 1  # (B,)
    found: mx.array = model[NAME](states[mx.arange(len(last)), mx.array(last)])
    return found


def read_head(folder: Path, dim: int) -> ScalarHead:
    """The head in a folder. Raises CheckpointError where there is none, or one of another base."""
    file = folder / HEAD
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: there is no {HEAD}; name a folder that a run with objective reward has written"
        )
    weight = read_tensors(file).get(_TENSOR)
    if weight is None or weight.shape != (1, dim):
        found = "is missing" if weight is None else f"has shape {weight.shape}"
        raise CheckpointError(
            f"{file}: {_TENSOR} {found} where this model asks for (1, {dim}); the head belongs to another base"
        )
    return ScalarHead(weight[0])
