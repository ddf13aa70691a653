"""The learning rate of each step: a pure function of a schedule and the step's number."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from macllm.errors import OptionError

Shape: TypeAlias = Literal["constant", "linear", "cosine", "wsd"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Schedule:
    """How the rate moves over ``steps``: up from zero for ``warmup`` of them, then as ``shape`` says.

    ``constant`` stays. ``linear`` and ``cosine`` (Loshchilov and Hutter 2017) fall to ``final``, a share of the peak.
    ``wsd`` (warmup, stable, decay: Hu et al. 2024) stays until the last ``decay`` of all steps, a share too, and falls
    on a line there.
    """

    shape: Shape = "constant"
    steps: int = 1000
    warmup: int = 0
    final: float = 0.0
    decay: float = 0.2

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise OptionError(f"schedule {self.shape!r} is not known (expected one of {', '.join(SHAPES)})")
        if self.steps < 1:
            raise OptionError(f"a schedule of {self.steps} steps trains nothing (expected at least 1)")
        if not 0 <= self.warmup <= self.steps:
            raise OptionError(f"warmup {self.warmup} is not within the {self.steps} steps of the run")
        for name, share in (("final", self.final), ("decay", self.decay)):
            if not 0 <= share <= 1:
                raise OptionError(f"schedule {name} {share:g} is no share (expected 0 to 1)")


def learning_rate(schedule: Schedule, peak: float, step: int) -> float:
    """The rate of ``step``, counted from 0. The first step of a warmup is no step of zero, the last one is the peak."""
    if step < schedule.warmup:
        return peak * (step + 1) / schedule.warmup
    return peak * _share(schedule, step)


def _share(schedule: Schedule, step: int) -> float:
    """Of the peak, after the warmup."""
    falling = schedule.steps - schedule.warmup
    if schedule.shape == "wsd":
        falling = min(falling, round(schedule.decay * schedule.steps))
    if schedule.shape == "constant" or falling == 0:
        return 1.0
    done = min(max((step - (schedule.steps - falling)) / falling, 0.0), 1.0)
    left = (1 + math.cos(math.pi * done)) / 2 if schedule.shape == "cosine" else 1 - done
    return schedule.final + (1 - schedule.final) * left
