"""The settings of a fine-tuning run: mlx-lm's names, defaults, ranges and a line of help each, in one table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from macllm.adapters.method import ALL_LAYERS
from macllm.errors import OptionError

Value: TypeAlias = float | int | str | bool
_YES, _NO = ("yes", "on", "true", "1"), ("no", "off", "false", "0")


@dataclass(frozen=True)
class Setting:
    """One setting. A ``default`` of None may stay empty. The range includes its ends, or not ``low`` if ``above``."""

    name: str
    default: Value | None
    help: str  # one sentence without a full stop
    low: float = 0
    high: float = math.inf
    whole: bool = False
    above: bool = False

    @property
    def switch(self) -> bool:
        return isinstance(self.default, bool)

    @property
    def expected(self) -> str:
        """What it may be, in words."""
        if self.switch:
            return "yes or no"
        noun = "a whole number" if self.whole else "a number"
        ends = f"{'above' if self.above else 'of at least'} {self.low:g}"
        words = f"{noun} {ends}" + (f" and at most {self.high:g}" if self.high != math.inf else "")
        return f"all, or {words}" if self.name == "num_layers" else words

    def parse(self, text: str) -> Value | None:
        """The value a person wrote; None for nothing where that is allowed. Raises OptionError in one sentence."""
        text = text.strip()
        if not text and self.default is None:
            return None
        if self.switch:
            return self._switch(text)
        if self.name == "num_layers" and text.lower() in ("all", str(ALL_LAYERS)):
            return ALL_LAYERS
        try:
            number: float = int(text.replace("_", "")) if self.whole else float(text.replace(",", "."))
        except ValueError:
            raise self._refused(text) from None
        inside = self.low < number <= self.high if self.above else self.low <= number <= self.high
        if not inside or not math.isfinite(number):
            raise self._refused(text)
        return number

    def write(self, value: Value | None) -> str:
        """The text that :meth:`parse` reads as ``value``."""
        if value is None:
            return ""
        if isinstance(value, bool):
            return _YES[0] if value else _NO[0]
        if self.name == "num_layers" and value == ALL_LAYERS:
            return "all"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def _switch(self, text: str) -> bool:
        if text.lower() in (*_YES, *_NO):
            return text.lower() in _YES
        raise self._refused(text)

    def _refused(self, text: str) -> OptionError:
        return OptionError(f"{self.name}={text!r} is not possible (expected {self.expected})")


SETTINGS: tuple[Setting, ...] = (
    Setting("rank", 8, "width of the adapter; more learns more and takes more memory", 1, 1024, whole=True),
    Setting("scale", 20.0, "how strongly the adapter acts", above=True),
    Setting("dropout", 0.0, "share of the adapter's input left out at random while it learns", 0, 0.95),
    Setting(
        "num_layers",
        ALL_LAYERS,
        "layers that learn, counted from the last; all of them, or fewer",
        1,
        whole=True,
    ),
    Setting("batch_size", 4, "rows computed at once", 1, 4096, whole=True),
    Setting(
        "grad_accumulation_steps",
        1,
        "batches that make one step: a larger batch without its memory",
        1,
        whole=True,
    ),
    Setting("iters", 1000, "steps to train", 1, whole=True),
    Setting("epochs", None, "times through all rows; replaces iters", above=True),
    Setting("learning_rate", 1e-5, "how far one step goes", 0, 1, above=True),
    Setting("max_seq_length", 2048, "tokens of a row; longer rows are cut", 8, 1_048_576, whole=True),
    Setting("mask_prompt", False, "learn the answers only, not what was asked"),
    Setting(
        "grad_checkpoint", False, "compute activations twice instead of keeping them: slower, far less memory"
    ),
    Setting("seed", 0, "the same seed gives the same run", 0, 2**64 - 1, whole=True),
    Setting("save_every", 100, "steps between two saves to resume from", 1, whole=True),
    Setting(
        "steps_per_eval", 200, "steps between two looks at the validation rows and the samples", 1, whole=True
    ),
)

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}
DEFAULTS: Mapping[str, Value] = {each.name: each.default for each in SETTINGS if each.default is not None}


def steps(settings: Mapping[str, Value], rows: int) -> int:
    """Optimizer steps that these settings make of so many training rows; the last partial batch counts."""
    epochs = settings.get("epochs")
    if epochs is None:
        return int(settings["iters"])
    batches = math.ceil(rows / int(settings["batch_size"]))
    each = math.ceil(batches / int(settings["grad_accumulation_steps"]))
    return max(1, math.ceil(each * float(epochs)))


def epochs(settings: Mapping[str, Value], rows: int) -> float:
    """How often every row is seen."""
    if (stated := settings.get("epochs")) is not None:
        return float(stated)
    seen = int(settings["iters"]) * int(settings["batch_size"]) * int(settings["grad_accumulation_steps"])
    return seen / rows if rows else 0.0
