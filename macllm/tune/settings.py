"""The settings of a fine-tuning run: mlx-lm's names, defaults, ranges and a line of help each, in one table."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from macllm.adapters.method import ALL_LAYERS, KINDS
from macllm.errors import OptionError
from macllm.tune.objectives.kinds import NAMES as OBJECTIVES
from macllm.tune.schedules import SHAPES

Value: TypeAlias = float | int | str | bool
_YES, _NO = ("yes", "on", "true", "1"), ("no", "off", "false", "0")


@dataclass(frozen=True)
class Setting:
    """One setting. A ``default`` of None may stay empty. The range includes its ends, or not ``low`` if ``above``.

    One with ``choices`` is one of these words; a ``text`` is any. ``form``: the app's form shows it
    at once; the others are among its further settings.
    """

    name: str
    default: Value | None
    help: str  # one sentence without a full stop
    low: float = 0
    high: float = math.inf
    whole: bool = False
    above: bool = False
    choices: tuple[str, ...] = ()
    text: bool = False
    form: bool = True

    @property
    def switch(self) -> bool:
        return isinstance(self.default, bool)

    @property
    def expected(self) -> str:
        """What it may be, in words."""
        if self.switch:
            return "yes or no"
        if self.choices:
            return " or ".join(filter(None, (", ".join(self.choices[:-1]), self.choices[-1])))
        if self.text:
            return "a text"
        noun = "a whole number" if self.whole else "a number"
        ends = f"{'above' if self.above else 'of at least'} {self.low:g}"
        words = f"{noun} {ends}" + (f" and at most {self.high:g}" if self.high != math.inf else "")
        return f"all, or {words}" if self.name == "num_layers" else words

    def parse(self, text: str) -> Value | None:
        """The value a person wrote; None for nothing where that is allowed. Raises OptionError in one sentence."""
        text = text.strip()
        if not text and self.default is None:
            return None
        if self.text:
            return text or self.default
        if self.choices:
            return self._choice(text)
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

    def _choice(self, text: str) -> str:
        if text.lower() in self.choices:
            return text.lower()
        raise self._refused(text)

    def _refused(self, text: str) -> OptionError:
        return OptionError(f"{self.name}={text!r} is not possible (expected {self.expected})")


Learn: TypeAlias = Literal["turns", "last", "all"]
LEARN: tuple[Learn, ...] = get_args(Learn)
OptimizerName: TypeAlias = Literal["adamw", "adam", "sgd", "adafactor", "lion", "muon"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
LossType: TypeAlias = Literal["dapo", "grpo", "dr_grpo"]
LOSS_TYPES: tuple[LossType, ...] = get_args(LossType)
ScaleRewards: TypeAlias = Literal["group", "batch", "none"]
SCALE_REWARDS: tuple[ScaleRewards, ...] = get_args(ScaleRewards)
Divergence: TypeAlias = Literal["forward", "reverse", "js"]
DIVERGENCES: tuple[Divergence, ...] = get_args(Divergence)
PACK = ("auto", "yes", "no")

SETTINGS: tuple[Setting, ...] = (
    Setting("objective", "sft", "what the model learns from the rows", choices=OBJECTIVES),
    Setting(
        "beta",
        None,
        "how much a preference weighs against what the base says (default: the objective's own)",
        above=True,
        form=False,
    ),
    Setting(
        "label_smoothing",
        0.0,
        "chance that a row names the wrong answer as the better one",
        0,
        0.5,
        form=False,
    ),
    Setting(
        "simpo_gamma", 0.5, "how much better than the rejected answer simpo wants the chosen one", form=False
    ),
    Setting("cpo_alpha", 1.0, "weight of cpo's loss of what is chosen", form=False),
    Setting("desirable_weight", 1.0, "weight of kto's wanted answers", above=True, form=False),
    Setting("undesirable_weight", 1.0, "weight of kto's unwanted answers", above=True, form=False),
    Setting(
        "balance",
        0.0,
        "weight of the loss that keeps a mixture's experts equally busy, beside any objective",
        form=False,
    ),
    Setting(
        "reward",
        None,
        "what an answer is worth: exact_match, numeric, regex, json_schema, code or file.py:function, "
        "several with commas, each perhaps with *weight",
        text=True,
        form=False,
    ),
    Setting("num_generations", 8, "answers to a prompt that are compared", 2, 1024, whole=True, form=False),
    Setting(
        "max_completion_length",
        256,
        "tokens that the model may answer with",
        1,
        1_048_576,
        whole=True,
        form=False,
    ),
    Setting(
        "temperature", 1.0, "how freely answers are drawn; 1 is as the model has it", above=True, form=False
    ),
    Setting(
        "epsilon",
        0.2,
        "how much likelier or less likely than drawn an answer may get in a step",
        0,
        1,
        form=False,
    ),
    Setting("epsilon_high", None, "the same for likelier alone (default: epsilon)", above=True, form=False),
    Setting(
        "loss_type",
        "dapo",
        "what answers weigh: all tokens the same (dapo), all answers (grpo), tokens of the longest possible (dr_grpo)",
        choices=LOSS_TYPES,
        form=False,
    ),
    Setting(
        "scale_rewards",
        "group",
        "what rewards are divided by: how much they differ in the group, in the batch, or nothing (none)",
        choices=SCALE_REWARDS,
        form=False,
    ),
    Setting(
        "mask_truncated_completions",
        False,
        "learn nothing from answers that max_completion_length has cut",
        form=False,
    ),
    Setting(
        "teacher", None, "name or path of the model whose distribution is learned", text=True, form=False
    ),
    Setting(
        "divergence",
        "forward",
        "how far from the teacher: all that it thinks (forward), what it likes best (reverse), or between (js)",
        choices=DIVERGENCES,
        form=False,
    ),
    Setting("mixing", 0.5, "where js stands: near 0 as forward, near 1 as reverse", 0.001, 0.999, form=False),
    Setting(
        "on_policy", 0.0, "share of batches in which the model learns on answers of its own", 0, 1, form=False
    ),
    Setting(
        "teacher_top_k",
        None,
        "tokens whose share of the teacher's distribution is kept on disk (default: all, and the teacher in memory)",
        1,
        whole=True,
        form=False,
    ),
    Setting("method", "lora", "what learns: an adapter, or the weights (full)", choices=KINDS),
    Setting("rank", 8, "width of the adapter; more learns more and takes more memory", 1, 1024, whole=True),
    Setting("scale", 20.0, "how strongly the adapter acts", above=True, form=False),
    Setting(
        "loraplus_ratio",
        1.0,
        "how much faster an adapter's second factor learns than its first (LoRA+ suggests 16)",
        above=True,
        form=False,
    ),
    Setting(
        "dropout", 0.0, "share of the adapter's input left out at random while it learns", 0, 0.95, form=False
    ),
    Setting(
        "targets",
        "all",
        "matrices that get an adapter: all, attention, mlp, or names such as q_proj with commas between",
        text=True,
        form=False,
    ),
    Setting(
        "num_layers",
        ALL_LAYERS,
        "layers that learn, counted from the last; all of them, or fewer",
        1,
        whole=True,
        form=False,
    ),
    Setting(
        "virtual_tokens",
        20,
        "tokens that prompt and prefix learn to put before every row",
        1,
        4096,
        whole=True,
        form=False,
    ),
    Setting("batch_size", 4, "rows computed at once", 1, 4096, whole=True),
    Setting(
        "grad_accumulation_steps",
        1,
        "batches that make one step: a larger batch without its memory",
        1,
        whole=True,
        form=False,
    ),
    Setting("epochs", 3.0, "times through all rows", above=True),
    Setting("iters", None, "steps to train; replaces epochs", 1, whole=True, form=False),
    Setting(
        "learning_rate",
        1e-4,
        "how far one step goes; full wants less, such as 1e-5",
        0,
        1,
        above=True,
    ),
    Setting("optimizer", "adamw", "rule of the steps", choices=OPTIMIZERS, form=False),
    Setting(
        "optimizer_bits",
        "32",
        "bits of what the optimizer remembers of each weight; 8 save memory where many weights learn",
        choices=("32", "8"),
        form=False,
    ),
    Setting(
        "weight_decay",
        None,
        "how strongly weights are drawn to zero (default: the optimizer's own)",
        form=False,
    ),
    Setting(
        "schedule", "constant", "how the learning rate goes on after its warmup", choices=SHAPES, form=False
    ),
    Setting("warmup", 0, "steps in which the learning rate rises to its full height", whole=True, form=False),
    Setting("clip", 1.0, "largest norm of a step's gradient; 0 does not bound it", form=False),
    Setting("max_seq_length", 2048, "tokens of a row; longer rows are cut", 8, 1_048_576, whole=True),
    Setting(
        "pack",
        "auto",
        "no padding: about batch_size rows of the data (auto), or batch_size rows of max_seq_length tokens (yes)",
        choices=PACK,
        form=False,
    ),
    Setting(
        "learn",
        "turns",
        "what is learned of a conversation: every answer, the last one, or all that is said",
        choices=LEARN,
    ),
    Setting(
        "keys",
        None,
        "other names of a row's keys, such as question=prompt,answer=completion",
        text=True,
        form=False,
    ),
    Setting(
        "grad_checkpoint", False, "compute activations twice instead of keeping them: slower, far less memory"
    ),
    Setting(
        "memory",
        None,
        "memory that may be taken, such as 12GB (default: what models may take here)",
        text=True,
        form=False,
    ),
    Setting("seed", 0, "the same seed gives the same run", 0, 2**64 - 1, whole=True, form=False),
    Setting("save_every", 100, "steps between two saves to resume from", 1, whole=True, form=False),
    Setting(
        "steps_per_eval",
        200,
        "steps between two looks at the validation rows and the samples",
        1,
        whole=True,
        form=False,
    ),
    Setting(
        "early_stop",
        None,
        "looks at the validation rows without a better one before it stops",
        1,
        whole=True,
        form=False,
    ),
    Setting(
        "samples", 2, "validation prompts that are answered at every look", 0, 64, whole=True, form=False
    ),
)
FORM: tuple[Setting, ...] = tuple(setting for setting in SETTINGS if setting.form)

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}
DEFAULTS: Mapping[str, Value] = {each.name: each.default for each in SETTINGS if each.default is not None}


def checked(given: Mapping[str, Value]) -> dict[str, Value]:
    """What was given over the defaults: a value for every setting but those that may stay empty.

    Raises OptionError for a name or a value that is not possible.
    """
    found: dict[str, Value] = {**DEFAULTS}
    for name, value in given.items():
        if name not in BY_NAME:
            close = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise OptionError(f"there is no setting {name!r}{hint}")
        own = BY_NAME[name].parse(BY_NAME[name].write(value))
        if own is not None:
            found[name] = own
    return found


def steps(settings: Mapping[str, Value], per_epoch: int) -> int:
    """Optimizer steps of a run whose passes are ``per_epoch`` batches; the last partial step counts."""
    return math.ceil(batches(settings, per_epoch) / int(settings["grad_accumulation_steps"]))


def batches(settings: Mapping[str, Value], per_epoch: int) -> int:
    """Batches of a run whose passes are so many."""
    if (stated := settings.get("iters")) is not None:
        return int(stated) * int(settings["grad_accumulation_steps"])
    return max(1, round(float(settings["epochs"]) * per_epoch))


def epochs(settings: Mapping[str, Value], per_epoch: int) -> float:
    """How often every row is seen."""
    if settings.get("iters") is None:
        return float(settings["epochs"])
    return batches(settings, per_epoch) / per_epoch if per_epoch else 0.0
