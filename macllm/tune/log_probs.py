"""How likely a model finds the answers of a batch: one log-probability a row, of its learned tokens."""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm.nn.decoder import Decoder
from macllm.tune.batches import Batch
from macllm.tune.forward import hidden
from macllm.tune.loss import token_losses


def answer_log_probs(
    model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
) -> tuple[mx.array, NDArray[np.int64]]:
    """The sums (B,), float32, of log p of each row's learned tokens, and how many these are (B,).

    Of rows of one example each: padding stands behind all that could see it. ``checkpoint`` as in
    :func:`macllm.tune.forward.hidden`, ``learns`` as in :func:`macllm.tune.loss.token_losses`.
    """
    mask = batch.learned[:, 1:]  # (B, L - 1)
    counts = mask.sum(axis=1)
    states = hidden(model, mx.array(batch.ids[:, :-1]), checkpoint=checkpoint)  # (B, L - 1, D)
    places = np.flatnonzero(mask).astype(np.int32)  # (N,)
    rows = states.reshape(-1, states.shape[-1])[mx.array(places)]  # (N, D)
    targets = batch.ids[:, 1:].reshape(-1)[places]
    losses = token_losses(model, rows, mx.array(targets), learns=learns)
    owners = mx.array(places // mask.shape[1])
    return mx.zeros(len(counts)).at[owners].add(-losses), counts
