"""The arithmetic of GRPO (arXiv 2402.03300): advantages within a group, the clipped ratio, KL to a reference.

Where later work changed it, settings have TRL's names: ``scale_rewards`` and ``loss_type`` (Dr. GRPO, arXiv 2503.20783;
DAPO, arXiv 2503.14476).
"""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm.tune.settings import LossType, ScaleRewards

_LEAST = 1e-4  # beside a standard deviation that is divided by, as in TRL


@dataclass(frozen=True)
class Clip:
    """How far from 1 the ratio of new to old probability may count, below and above."""

    low: float
    high: float


def advantages(rewards: NDArray[np.float64], scale: ScaleRewards) -> NDArray[np.float32]:
    """Of rewards (P, G), a row a prompt: each less its group's mean, over a standard deviation; 0 where all are alike.

    The deviation is the group's, the batch's, or none (Dr. GRPO: else the easy and the hard prompts weigh most).
    """
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    centred[np.ptp(rewards, axis=1) == 0] = 0.0  # not what rounding of the mean leaves
    if scale != "none" and rewards.shape[1] > 1:
        # of a sample, as PyTorch's
        centred /= np.std(rewards, axis=None if scale == "batch" else 1, ddof=1, keepdims=True) + _LEAST
    found: NDArray[np.float32] = centred.astype(np.float32)
    return found


def policy_losses(
    log_probs: mx.array,
    old: mx.array,
    advantage: mx.array,
    clip: Clip,
    reference: mx.array | None = None,
    beta: float = 0.0,
) -> mx.array:
    """The loss (N,) of each token, from log p (N,) now, when it was drawn, and of the reference; advantages (N,)."""
    ratio = mx.exp(log_probs - old)
    clipped = mx.clip(ratio, 1 - clip.low, 1 + clip.high)
    losses = -mx.minimum(ratio * advantage, clipped * advantage)
    return losses if reference is None else losses + beta * kl(log_probs, reference)


def kl(log_probs: mx.array, reference: mx.array) -> mx.array:
    """KL (N,) of the policy from the reference by one drawn token each: at least 0, without bias (Schulman's k3)."""
    further = reference - log_probs
    return mx.exp(further) - further - 1


def token_weights(
    lengths: NDArray[np.int64], loss_type: LossType, most: int
) -> tuple[NDArray[np.float32], int]:
    """The weight (B,) of a token's loss in each row of so many learned tokens (B,), and what the sum is divided by.

    ``dapo``: a mean over all tokens. ``grpo``: one over rows of the mean of each, which favours short answers that
    are right and long ones that are wrong. ``dr_grpo``: over rows, each by ``most``, the tokens it may have.
    """
    rows = len(lengths)
    if loss_type == "dapo":
        return np.ones(rows, np.float32), max(1, int(lengths.sum()))
    if loss_type == "grpo":
        return (1 / np.maximum(lengths, 1)).astype(np.float32), rows
    return np.full(rows, 1 / most, np.float32), rows
