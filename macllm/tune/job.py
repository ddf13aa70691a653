"""A run as it is asked for, and what its settings say to each part: method, optimizer, schedule, batches, examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from macllm.adapters.method import (
    MATRIX_KINDS,
    TWO_FACTORS,
    VIRTUAL,
    AnyMethod,
    Bottleneck,
    Method,
    Scalings,
    Virtual,
)
from macllm.errors import OptionError
from macllm.spec import ModelSpec
from macllm.tune import packing
from macllm.tune.batches import Batching
from macllm.tune.examples import ExampleSettings
from macllm.tune.optimizers import OptimizerSpec
from macllm.tune.schedules import SHAPES, Schedule
from macllm.tune.settings import LEARN, OPTIMIZERS, Value


@dataclass(frozen=True)
class Job:
    """Teach the model at ``base`` by the rows at ``data`` and write what is learned to ``folder``.

    ``settings`` are those that were given; the others have their defaults. ``name`` is what the base is called. With
    ``resume`` the run in ``folder`` goes on, with the settings that it was begun with.
    """

    base: Path
    data: Path
    folder: Path
    settings: Mapping[str, Value] = field(default_factory=dict)
    name: str = ""
    dtype: str | None = None
    resume: bool = False


def method_of(settings: Mapping[str, Value]) -> AnyMethod:
    """Raises OptionError for a setting that says nothing to the method."""
    ratio = float(settings["loraplus_ratio"])
    if ratio != 1 and settings["method"] not in TWO_FACTORS:
        raise OptionError(
            f"loraplus_ratio={ratio:g} is for methods with two factors ({', '.join(TWO_FACTORS)}); leave it at 1"
        )
    named, layers = (str(settings["targets"]),), int(settings["num_layers"])
    match settings["method"]:
        case "ia3":
            return Scalings(named, layers)
        case "bottleneck":
            return Bottleneck(int(settings["rank"]), named, layers)
        case "prompt" | "prefix" as virtual:
            return Virtual(virtual, int(settings["virtual_tokens"]))
    kind = next(kind for kind in MATRIX_KINDS if kind == settings["method"])
    return Method(
        kind,
        int(settings["rank"]),
        float(settings["scale"]),
        float(settings["dropout"]),
        named,
        layers,
    )


def optimizer_of(settings: Mapping[str, Value]) -> OptimizerSpec:
    """Raises OptionError for a number that the optimizer does not take."""
    name = next(name for name in OPTIMIZERS if name == settings["optimizer"])
    clip, decay = float(settings["clip"]), settings.get("weight_decay")
    bits = int(settings["optimizer_bits"])
    return OptimizerSpec(name, clip or None, None if decay is None else float(decay), bits=bits)


def schedule_of(settings: Mapping[str, Value], steps: int) -> Schedule:
    """Over so many steps. Raises OptionError for a warmup that is longer."""
    shape = next(shape for shape in SHAPES if shape == settings["schedule"])
    return Schedule(shape, steps, int(settings["warmup"]))


def example_settings_of(settings: Mapping[str, Value], date: str) -> ExampleSettings:
    learn = next(learn for learn in LEARN if learn == settings["learn"])
    return ExampleSettings(int(settings["max_seq_length"]), learn, date, str(settings.get("keys", "")))


def batching_of(
    settings: Mapping[str, Value],
    spec: ModelSpec,
    lengths: Sequence[int],
    looked_at: Sequence[int] = (),
    *,
    together: int = 1,
    packs: bool = True,
) -> Batching:
    """Batches of examples of these ``lengths``, and of those that are ``looked_at`` to validate.

    ``together`` and ``packs`` are the objective's. ``pack=yes`` fills ``batch_size`` rows of ``max_seq_length``;
    ``auto`` packs as many examples as ``batch_size`` rows are without it: the same steps, less padding. Raises
    OptionError where rows are to be packed and cannot be.
    """
    wanted, why = settings["pack"], why_not_packed(settings, spec, together=together, packs=packs)
    if wanted == "yes" and why is not None:
        raise OptionError(f"pack=yes is not possible: {why}; leave packing off")
    rows, longest = int(settings["batch_size"]), int(settings["max_seq_length"])
    if wanted == "no" or why is not None:
        return Batching(rows, longest, together=together)
    if wanted == "auto":
        rows, longest = packing.shape(rows, longest, lengths, looked_at)
    return Batching(rows, longest, pack=True)


def why_not_packed(
    settings: Mapping[str, Value], spec: ModelSpec, *, together: int = 1, packs: bool = True
) -> str | None:
    """Why several rows cannot share one, whatever is wanted; None where they can."""
    if not packs or together > 1:
        return f"objective {settings['objective']!r} looks at each row by itself"
    if settings["method"] in VIRTUAL:
        return f"method {settings['method']!r} puts its tokens before one row alone"
    return spec.unpackable
