"""One optimizer step over micro-batches: their gradients summed, divided once by all supervised tokens of the step.

So the loss of a step is a mean over its tokens, however they were split. A step whose loss or gradient is no finite
number changes nothing.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.tune.optimizers import Optimizer
from macllm.tune.parallel import ALONE, World
from macllm.tune.trained import flat, leaves, number, put, replaced

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a step came to.

    ``loss`` is the mean over ``supervised`` tokens (NaN where there are none), before the update; ``grad_norm`` the
    global norm of its gradient before clipping. ``applied`` is false where parameters and optimizer are as they were,
    and ``why`` says why.
    """

    loss: float
    grad_norm: float
    supervised: int
    applied: bool
    why: str = ""


def optimizer_step(
    model: Module,
    optimizer: Optimizer,
    micro_batches: Iterable[T],
    loss: Callable[[T], tuple[mx.array, int]],
    rate: float,
    world: World = ALONE,
) -> Outcome:
    """Moves the model's trainable parameters once, at learning rate ``rate``.

    ``loss`` gives the sum over a micro-batch's supervised tokens and their count, by the model as it stands. In a
    ``world`` of several processes the micro-batches are this one's share, and all make the step of all shares.
    """
    total, count, gradients = summed_gradients(model, micro_batches, loss)
    return apply(model, optimizer, *world.summed(total, count, gradients, flat(model)), rate)


def apply(
    model: Module,
    optimizer: Optimizer,
    total: float,
    count: int,
    gradients: dict[str, mx.array],
    rate: float,
) -> Outcome:
    """The update by what :func:`summed_gradients` gave, or by the sums of what it gave to several processes.

    ``gradients`` is emptied where it is made.
    """
    if not count:
        return Outcome(math.nan, 0.0, 0, False, "no token of the step is supervised")
    mean = total / count
    divisor, found = optimizer.divisor(gradients, count)
    norm = number(found)
    for name, value in (("loss", mean), ("gradient", norm)):
        if not math.isfinite(value):
            return Outcome(mean, norm, count, False, f"the {name} is no finite number ({value})")
    put(model, optimizer.update(flat(model), gradients, rate, divisor))
    mx.eval(model.trainable_parameters(), optimizer.state())
    return Outcome(mean, norm, count, True)


def summed_gradients(
    model: Module, micro_batches: Iterable[T], loss: Callable[[T], tuple[mx.array, int]]
) -> tuple[float, int, dict[str, mx.array]]:
    """Sum of the losses, count of their tokens, and the gradient of the sum by path, in float32.

    One micro-batch is in memory at a time.
    """

    def of(parameters: Any, batch: T) -> tuple[mx.array, int]:
        with replaced(model, parameters):
            return loss(batch)

    differentiated = mx.value_and_grad(of)
    total, count, gradients = 0.0, 0, dict[str, mx.array]()
    for batch in micro_batches:
        (summed, tokens), found = differentiated(model.trainable_parameters(), batch)
        for name, one in leaves(found).items():
            wide = one.astype(mx.float32)
            gradients[name] = gradients[name] + wide if name in gradients else wide
        del found
        mx.eval(summed, gradients)
        total += number(summed)
        count += tokens
    return total, count, gradients
