"""Supervised fine-tuning: the cross-entropy of a batch's learned tokens, summed. Padding and packing change nothing."""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm.nn.decoder import Decoder
from macllm.tune.forward import hidden
from macllm.tune.loss import summed_loss


def sft_loss(
    model: Decoder,
    ids: NDArray[np.int32],
    learned: NDArray[np.bool_],
    segments: NDArray[np.int32],
    *,
    checkpoint: bool = False,
    learns: bool = True,
) -> tuple[mx.array, int]:
    """The sum of the losses, float32, and how many there are, of a batch whose arrays are all (B, L).

    ``learned`` where ``ids[b, t]`` is to be predicted from what precedes it in its document; ``segments`` count a
    row's documents from 1, with 0 for padding behind them. ``checkpoint`` as in :func:`macllm.tune.forward.hidden`,
    ``learns`` as in :func:`macllm.tune.loss.token_losses`.
    """
    inputs = segments[:, :-1]
    # padding stands behind all that could see it: a row of one document needs no mask
    packed = inputs if inputs.max(initial=0) > 1 else None
    states = hidden(model, mx.array(ids[:, :-1]), packed, checkpoint=checkpoint)
    # the first token of a document is predicted by nothing: what stands before it is another's
    mask = learned[:, 1:] & (segments[:, 1:] == inputs)
    return summed_loss(model, states, mx.array(ids[:, 1:]), mx.array(mask), learns=learns)
