"""Cross-entropy over supervised tokens, head and loss a few hundred rows at a time: never a tensor of all logits.

Prompt tokens and padding cost nothing here, since rows without a target are left out before the head.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from macllm.nn.decoder import Decoder
from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.tune.trained import leaves, replaced

CHUNK = 512  # rows whose logits exist at once, at most
# On CPU, MLX allocates up to a hundred operations ahead of the one that runs: ten times a chunk's logits are in memory,
# not three times. Fewer rows than these would cost more than they save, as BLAS reads the whole head for each chunk.
_CPU_LOGITS, _FEWEST_ROWS = 6 * 2**20, 16


@dataclass(frozen=True)
class Supervised:
    """Which of the states (B L, D) have a target, and which: both (N,) int32."""

    rows: mx.array
    ids: mx.array

    @property
    def count(self) -> int:
        return int(self.rows.size)


def supervised(targets: mx.array, mask: mx.array) -> Supervised:
    """Those of ``targets`` (B, L) ids where ``mask`` (B, L) is true. Both are data: they are looked at here."""
    rows = np.flatnonzero(np.array(mask))
    return Supervised(mx.array(rows.astype(np.int32)), targets.reshape(-1)[mx.array(rows)].astype(mx.int32))


def summed_loss(
    model: Decoder, hidden: mx.array, targets: mx.array, mask: mx.array, *, learns: bool = True
) -> tuple[mx.array, int]:
    """The sum of the losses, float32, and their count, of states (B, L, D) whose next ids are ``targets`` (B, L).

    Only where ``mask`` (B, L) is true. ``learns`` as in :func:`token_losses`.
    """
    found = supervised(targets, mask)
    if not found.count:
        return mx.array(0.0), 0
    rows = hidden.reshape(-1, hidden.shape[-1])[found.rows]  # (N, D)
    return token_losses(model, rows, found.ids, learns=learns).sum(), found.count


def token_losses(
    model: Decoder, states: mx.array, ids: mx.array, *, learns: bool = True, temperature: float = 1.0
) -> mx.array:
    """``-log p(id)`` of each of states (N, D) with its next id (N,): (N,) float32, N at least 1.

    ``temperature`` divides the logits, as it does where tokens are drawn. Else as :func:`row_losses`.
    """
    return row_losses(model, states, (ids,), CrossEntropy(temperature), learns=learns)


class RowLoss(ABC):
    """A loss of each row of logits by itself, from what else is told of the row."""

    @abstractmethod
    def losses(self, logits: mx.array, *told: mx.array) -> mx.array:
        """The losses (n,), float32, of logits (n, V)."""

    def with_slopes(self, logits: mx.array, *told: mx.array) -> tuple[mx.array, mx.array]:
        """The losses (n,) and their derivatives by the logits (n, V)."""
        (losses,), (slopes,) = mx.vjp(
            lambda own: self.losses(own, *told), [logits], [mx.ones(logits.shape[:1])]
        )
        return losses, slopes


def row_losses(
    model: Decoder, states: mx.array, told: tuple[mx.array, ...], rule: RowLoss, *, learns: bool = True
) -> mx.array:
    """The losses (N,), float32, of states (N, D) of which ``told`` says something by row, N at least 1.

    Differentiable by the states and by the head's trainable parameters, with the logits of a few hundred rows in
    memory at most. Where no gradient is asked for, ``learns=False`` saves what is prepared for it.
    """
    head = _trainable_head(model)
    if not learns:
        parts = _chunks(_rows(model), states, *told)
        return mx.concatenate([rule.losses(model.logits(part), *known) for part, *known in parts])
    if not head:
        losses: mx.array = _of_frozen_head(model, told, rule)(states)[0]
        return losses
    result: mx.array = _of_trainable_head(model, told, rule)(states, head)
    return result


def _of_frozen_head(model: Decoder, told: tuple[mx.array, ...], rule: RowLoss) -> Any:
    """States (N, D) to losses (N,) and the gradient of each loss by its own state (N, D).

    A loss depends on one state alone, so that its gradient can be had while the logits are there; the backward pass
    multiplies it by what comes from above, and no logits are computed twice.
    """

    def surrogate(part: mx.array, *known: mx.array) -> tuple[mx.array, mx.array]:
        return _surrogate(model, part, known, rule)

    def losses(states: mx.array) -> tuple[mx.array, mx.array]:
        of_rows: list[mx.array] = []
        gradients: list[mx.array] = []
        for part, *known in _chunks(_rows(model), states, *told):
            if gradients:  # one after the other, and nothing of it left for later
                part = mx.depends(part, [gradients[-1], of_rows[-1]])
            (_, own), gradient = mx.value_and_grad(surrogate)(part, *known)
            of_rows.append(own)
            gradients.append(gradient)
        return mx.concatenate(of_rows), mx.concatenate(gradients)

    def backward(states: mx.array, cotangents: Any, outputs: Any) -> mx.array:
        above, own = cotangents[0], outputs[1]
        return mx.multiply(above[:, None], own).astype(states.dtype)

    return _with_gradient(losses, backward)


def _of_trainable_head(model: Decoder, told: tuple[mx.array, ...], rule: RowLoss) -> Any:
    """States (N, D) and the head's parameters to losses (N,); the backward pass computes each chunk's logits anew."""

    def surrogate(
        part: mx.array, head: Any, weights: mx.array, *known: mx.array
    ) -> tuple[mx.array, mx.array]:
        with replaced(model, head):
            return _surrogate(model, part, known, rule, weights)

    def losses(states: mx.array, head: Any) -> mx.array:
        found: list[mx.array] = []
        with replaced(model, head):
            for part, *known in _chunks(_rows(model), states, *told):
                part = mx.depends(part, found[-1]) if found else part
                found.append(rule.losses(model.logits(part), *known))
        return mx.concatenate(found)

    def backward(primals: Any, cotangent: mx.array, _: mx.array) -> Any:
        states, head = primals
        gradients: list[mx.array] = []
        total = tree_map(lambda weight: mx.zeros(weight.shape, mx.float32), head)
        for part, weights, *known in _chunks(_rows(model), states, cotangent, *told):
            if gradients:
                part = mx.depends(part, [gradients[-1], *leaves(total).values()])
            differentiated = mx.value_and_grad(surrogate, argnums=(0, 1))
            gradient, of_head = differentiated(part, head, weights, *known)[1]
            gradients.append(gradient)
            total = tree_map(lambda sum_, one: sum_ + one.astype(mx.float32), total, of_head)
        return mx.concatenate(gradients), tree_map(
            lambda sum_, weight: sum_.astype(weight.dtype), total, head
        )

    return _with_gradient(losses, backward)


def _with_gradient(function: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    """The function with a backward pass of its own: of its arguments, what comes from above, and its results."""
    own: Any = mx.custom_function(function)
    own.vjp(backward)
    return own


def _surrogate(
    model: Decoder, states: mx.array, told: Sequence[mx.array], rule: RowLoss, weights: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """A scalar whose gradient is that of the losses, each times its weight (n,); and the losses (n,).

    ``logits * slopes`` with the slopes held fixed: its backward pass is the head's and no softmax more.
    """
    logits = model.logits(states)
    losses, slopes = rule.with_slopes(mx.stop_gradient(logits), *told)
    if weights is not None:
        slopes = slopes * weights[:, None]
    fixed = mx.stop_gradient(slopes.astype(logits.dtype))
    return (logits * fixed).sum(), mx.stop_gradient(losses)


class CrossEntropy(RowLoss):
    """``-log p`` of each row's own id (n,), with the logits divided by a temperature."""

    def __init__(self, temperature: float = 1.0) -> None:
        self._temperature = temperature

    def losses(self, logits: mx.array, *told: mx.array) -> mx.array:
        logits, (ids,) = self._cooled(logits), told
        if slow_exponential():
            wide = logits.astype(mx.float32)
            highest = mx.max(wide, axis=-1, keepdims=True)
            total = exp2((wide - highest) * LOG2_E).sum(axis=-1)
            return mx.log(total) + highest[:, 0] - _at(wide, ids)
        return mx.fast.cross_entropy(_wide_where_unfused(logits), ids)

    def with_slopes(self, logits: mx.array, *told: mx.array) -> tuple[mx.array, mx.array]:
        """The slopes are softmax less one at the id."""
        logits, (ids,) = self._cooled(logits), told
        if slow_exponential():
            wide = logits.astype(mx.float32)
            highest = mx.max(wide, axis=-1, keepdims=True)
            powers = exp2((wide - highest) * LOG2_E)
            total = powers.sum(axis=-1, keepdims=True)
            share = powers / total
            slopes = mx.put_along_axis(share, ids[:, None], _at(share, ids)[:, None] - 1, axis=-1)
            return (mx.log(total) + highest)[:, 0] - _at(wide, ids), self._cooled(slopes)
        (losses,), (found,) = mx.vjp(
            lambda y: mx.fast.cross_entropy(y, ids), [_wide_where_unfused(logits)], [mx.ones(ids.shape)]
        )
        return losses, self._cooled(found)

    def _cooled(self, values: mx.array) -> mx.array:
        return values if self._temperature == 1 else values / self._temperature


def _wide_where_unfused(logits: mx.array) -> mx.array:
    """On CPU the loss would be summed in the type of the logits."""
    return logits if mx.default_device() == mx.gpu else logits.astype(mx.float32)


def _at(values: mx.array, ids: mx.array) -> mx.array:
    """The value (n,) at each row's id, of (n, V)."""
    return mx.take_along_axis(values, ids[:, None], axis=-1)[:, 0]


def _chunks(rows: int, *arrays: mx.array) -> Iterator[tuple[mx.array, ...]]:
    """The same rows of each of arrays (N, ...), about as many every time and at most ``rows``."""
    count = arrays[0].shape[0]
    rows = math.ceil(count / math.ceil(count / rows))
    for start in range(0, count, rows):
        yield tuple(array[start : start + rows] for array in arrays)


def _rows(model: Decoder) -> int:
    """Rows of a chunk."""
    if mx.default_device() == mx.gpu:
        return CHUNK
    return min(CHUNK, max(_FEWEST_ROWS, _CPU_LOGITS // model.spec.vocab))


def _trainable_head(model: Decoder) -> dict[str, Any]:
    """The trainable parameters behind :meth:`Decoder.logits`; empty where all of them are frozen."""
    parts = model.trainable_parameters()
    names = ("embed" if model.head is None else "head", "head_bias")
    return {name: parts[name] for name in names if name in parts and leaves(parts[name])}
