"""Optimizers of MLX behind one specification, with their state as flat arrays: a resumed run goes on bit for bit.

All arithmetic is in float32, whatever the weights are kept in.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, cast

import mlx.core as mx
from mlx import optimizers as mlx_optimizers

from macllm.errors import CheckpointError, OptionError
from macllm.tune.eight_bits import EightBits
from macllm.tune.settings import OPTIMIZERS, OptimizerName

_TAKES: Mapping[OptimizerName, tuple[str, ...]] = {
    "adamw": ("betas", "eps", "weight_decay"),
    "adam": ("betas", "eps"),
    "sgd": ("momentum", "weight_decay"),
    "adafactor": ("weight_decay",),
    "lion": ("betas", "weight_decay"),
    "muon": ("momentum", "weight_decay"),
}
BITS = (32, 8)  # of an average
# What Muon's author gives AdamW beside it, 3e-4 to 0.02 (github.com/KellerJordan/Muon).
_BESIDE_MUON = 0.015
_OUTSIDE_MUON = ("embed", "positions", "head")  # tables and the head are no hidden layers
_STEP = "step"

Arrays: TypeAlias = Mapping[str, mx.array]
Move: TypeAlias = Callable[[dict[str, mx.array], Arrays, mx.array], dict[str, mx.array]]


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and its numbers; None is the default of MLX's own. ``clip`` bounds the gradient's global norm.

    Adam and AdamW correct the bias of their averages as their papers do. Adafactor takes the given rate and no one
    of its own. Muon moves the matrices inside layers; AdamW moves the rest, at 0.015 of the rate. ``bits`` are those
    that averages are kept in: 32, or 8 (:mod:`macllm.tune.eight_bits`).
    """

    name: OptimizerName = "adamw"
    clip: float | None = 1.0
    weight_decay: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    momentum: float | None = None
    bits: int = 32

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise OptionError(
                f"optimizer {self.name!r} is not known (expected one of {', '.join(OPTIMIZERS)})"
            )
        if self.clip is not None and not self.clip > 0:
            raise OptionError(f"clip {self.clip:g} would stop all learning (expected a number above 0)")
        if self.bits not in BITS:
            raise OptionError(f"optimizer_bits={self.bits} is not possible (expected 32 or 8)")
        if self.bits == 8 and self.name == "adafactor":
            raise OptionError(
                "optimizer_bits=8 is not possible with adafactor, which keeps a row and a column of each matrix; "
                "leave it out"
            )
        for each in fields(self)[2:]:
            value = getattr(self, each.name)
            if value is None or each.name == "bits":
                continue
            if each.name not in _TAKES[self.name]:
                raise OptionError(
                    f"optimizer {self.name!r} has no {each.name}"
                    f" (it takes {', '.join(_TAKES[self.name])}); leave it out"
                )
            numbers = value if isinstance(value, tuple) else (value,)
            below_one = each.name in ("betas", "momentum")
            if any(not math.isfinite(one) or one < 0 or (below_one and one >= 1) for one in numbers):
                kind = "of 0 up to, not including, 1" if below_one else "of at least 0"
                raise OptionError(f"optimizer {self.name!r}: {each.name} {value} is no number {kind}")

    @property
    def numbers(self) -> dict[str, Any]:
        """Those that were given."""
        given = {name: getattr(self, name) for name in _TAKES[self.name]}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class _Group:
    """Parameters that one optimizer moves, at a share of the step's rate."""

    optimizer: Any
    share: float
    names: tuple[str, ...]
    move: Move


class Optimizer:
    """Moves parameters, given flat by their paths. Everything it remembers is in :meth:`state`."""

    def __init__(
        self,
        spec: OptimizerSpec,
        parameters: Mapping[str, mx.array],
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """``shares``: of the rate, by parameter; 1 where none is named (LoRA+ gives one factor more than the other)."""
        self.spec = spec
        members: dict[tuple[bool, float], list[str]] = {}
        for name, parameter in parameters.items():
            beside = spec.name == "muon" and not _for_muon(name, parameter)
            share = (shares or {}).get(name, 1.0) * (_BESIDE_MUON if beside else 1.0)
            members.setdefault((beside, share), []).append(name)
        self._groups: list[_Group] = []
        for (beside, share), names in members.items():
            made = _made(OptimizerSpec("adamw", bits=spec.bits) if beside else spec)
            made.init({name: parameters[name].astype(mx.float32) for name in names})
            self._groups.append(_Group(made, share, tuple(names), _move(made)))

    @property
    def steps(self) -> int:
        """Updates so far."""
        return int(self._groups[0].optimizer.step.item()) if self._groups else 0

    def divisor(self, gradients: Arrays, count: int = 1) -> tuple[mx.array, mx.array]:
        """What makes means of gradients summed over ``count``, their global norm at most ``spec.clip``.

        And the norm that the means have without that.
        """
        norm = mx.sqrt(sum((mx.square(one / count).sum() for one in gradients.values()), mx.array(0.0)))
        bound = self.spec.clip if self.spec.clip is not None else math.inf
        return count * mx.maximum((norm + 1e-6) / bound, 1.0), norm

    def update(
        self,
        parameters: Arrays,
        gradients: dict[str, mx.array],
        rate: float,
        divisor: mx.array | float = 1.0,
    ) -> dict[str, mx.array]:
        """The parameters one step further along ``gradients / divisor``, each in its own type.

        ``gradients`` is emptied: what holds one could hold what becomes of its parameter.
        """
        moved: dict[str, mx.array] = {}
        for group in self._groups:
            group.optimizer.learning_rate = rate * group.share
            slopes = {name: gradients.pop(name) for name in group.names}
            own = {name: parameters[name] for name in group.names}
            moved |= group.move(slopes, own, mx.array(divisor))
        return {name: moved[name] for name in parameters}

    def state(self) -> dict[str, mx.array]:
        """All that it remembers, flat: ``step``, and each parameter's averages as ``path:name``."""
        found: dict[str, mx.array] = {}
        for group in self._groups:
            found[_STEP] = group.optimizer.state[_STEP]
            for name in group.names:
                found |= {f"{name}:{key}": value for key, value in group.optimizer.state[name].items()}
        return found

    def restore(self, arrays: Mapping[str, mx.array], where: str = "optimizer state") -> None:
        """Takes over a :meth:`state`. Raises CheckpointError naming ``where`` and the tensor that is another's."""
        own = self.state()
        missing = next((name for name in own if name not in arrays), None)
        if missing is not None:
            raise CheckpointError(f"{where}: there is no {missing!r}; it is another run's, or cut off")
        extra = next((name for name in arrays if name not in own), None)
        if extra is not None:
            raise CheckpointError(
                f"{where}: {extra!r} belongs to no parameter of this run; resume with its own settings"
            )
        for name, array in arrays.items():
            if array.shape != own[name].shape:
                raise CheckpointError(
                    f"{where}: {name!r} has shape {array.shape} (expected {own[name].shape});"
                    " resume with the settings of the run that wrote it"
                )
        for group in self._groups:
            group.optimizer.state[_STEP] = arrays[_STEP]
            for name in group.names:
                group.optimizer.state[name] = {
                    key: arrays[f"{name}:{key}"] for key in group.optimizer.state[name]
                }


def _move(optimizer: Any) -> Move:
    """Gradients, parameters and a divisor to the parameters one step further, by an optimizer of :func:`_made`.

    An update is dozens of elementwise operations on each of hundreds of small matrices, in shapes that never change:
    where MLX compiles for the device it is compiled as a whole. What the optimizer remembers goes in and comes out;
    nothing is captured.
    """
    if isinstance(optimizer, EightBits):
        return optimizer.moved

    def move(gradients: dict[str, mx.array], parameters: Arrays, divisor: mx.array) -> dict[str, mx.array]:
        slopes = {name: one.astype(mx.float32) / divisor for name, one in gradients.items()}
        own = {name: one.astype(mx.float32) for name, one in parameters.items()}
        found = optimizer.apply_gradients(slopes, own)
        return {name: found[name].astype(one.dtype) for name, one in parameters.items()}

    if mx.default_device() != mx.gpu:  # on CPU, MLX would call a C++ compiler at run time
        return move
    return cast(Move, mx.compile(move, inputs=optimizer.state, outputs=optimizer.state))


def _for_muon(name: str, parameter: mx.array) -> bool:
    return parameter.ndim == 2 and name.partition(".")[0] not in _OUTSIDE_MUON


def _made(spec: OptimizerSpec) -> Any:
    """MLX's optimizer, or one whose averages are packed; its rate is set before every update."""
    if spec.bits == 8:
        positive = frozenset({"v"}) if spec.name in ("adam", "adamw") else frozenset[str]()
        return EightBits(_made(replace(spec, bits=32)), positive, whole=spec.name == "muon")
    numbers = spec.numbers
    match spec.name:
        case "adamw":
            return mlx_optimizers.AdamW(0.0, bias_correction=True, **numbers)
        case "adam":
            return mlx_optimizers.Adam(0.0, bias_correction=True, **numbers)
        case "sgd":
            return mlx_optimizers.SGD(0.0, **numbers)
        case "adafactor":
            # scaled by the weights' own size, an adapter's factor that starts at zero would hardly move
            return mlx_optimizers.Adafactor(0.0, relative_step=False, scale_parameter=False, **numbers)
        case "lion":
            return mlx_optimizers.Lion(0.0, **numbers)
        case "muon":
            return mlx_optimizers.Muon(0.0, **numbers)
