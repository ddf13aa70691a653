"""Whether a kernel may run here: what ``MACLLM_KERNELS`` says, what runs kernels, its verdict, and that it works."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, get_args

import mlx.core as mx

from macllm.errors import OptionError
from macllm.kernels.kernel import Kernel, Runner
from macllm.kernels.runners import device_runner
from macllm.kernels.switch import SWITCH
from macllm.kernels.trial import reason_of
from macllm.kernels.verdicts import Verdicts

Setting: TypeAlias = Literal["off", "on", "auto"]


@dataclass(frozen=True)
class Permit:
    """A kernel may run: by what, and how many times as fast as what it replaces (1 where nobody tried)."""

    run: Runner
    ratio: float = 1.0


def setting() -> Setting:
    """``MACLLM_KERNELS``: off (never), on (wherever they run), auto (where a trial found them right and faster).

    Raises OptionError for anything else.
    """
    given = os.environ.get("MACLLM_KERNELS") or "auto"
    for known in get_args(Setting):
        if given == known:
            return known  # type: ignore[no-any-return]
    raise OptionError(f"MACLLM_KERNELS={given!r} is not supported (expected off, on or auto)")


def runner() -> Runner | None:
    """What runs kernels here; None where nothing does."""
    return _stand_in[-1] if _stand_in else device_runner()


@contextmanager
def running_on(run: Runner) -> Iterator[None]:
    """Within it, ``run`` takes the device's place: the harness, or a stand-in of the tests."""
    _stand_in.append(run)
    changed()
    try:
        yield
    finally:
        _stand_in.pop()
        changed()


def changed() -> None:
    """Tells all who keep choices that permits have changed: the device, a verdict, a kernel switched off."""
    for forget in _keepers:
        forget()


def keeps_choices(forget: Callable[[], None]) -> None:
    """``forget`` is called whenever permits change."""
    _keepers.append(forget)


_stand_in: list[Runner] = []
_keepers: list[Callable[[], None]] = []


@cache
def _verdicts() -> Verdicts:
    return Verdicts.load()


keeps_choices(_verdicts.cache_clear)


def permitted(kernel: Kernel, dtype: mx.Dtype, rows: int = 1) -> Permit | None:
    """The permit of a kernel for a type and a number of rows; None where it may not run."""
    run, said = runner(), setting()
    if run is None or said == "off":
        return None
    permit = Permit(run)
    if said == "auto":
        verdict = _verdicts().of(kernel, dtype, rows)
        if verdict.status != "faster":
            return None
        permit = Permit(run, verdict.ratio)
    return permit if SWITCH.use(kernel) else None


def withdraw(error: BaseException) -> tuple[str, ...]:
    """Switches off what ``error``, which came while a model ran, is to be blamed on: names of kernels, or none."""
    names = SWITCH.blame(error, reason_of(error))
    if names:
        changed()
    return names
