"""What a person has filled in to train an adapter, and what is still wrong with it: sentences by field."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from macllm.adapters import kept as adapters
from macllm.adapters.method import VIRTUAL
from macllm.engine.protocol import ModelRef, Train
from macllm.errors import InputError
from macllm.tune.keys import parse as parse_keys
from macllm.tune.memory import parse_memory
from macllm.tune.objectives.kinds import KINDS, SPECIAL, refuse_rows
from macllm.tune.rows import DataReport
from macllm.tune.settings import BY_NAME, SETTINGS, Value, epochs, steps

DEFAULT_TEXTS: Mapping[str, str] = MappingProxyType(
    {each.name: each.write(each.default) for each in SETTINGS}
)
_CHARACTERS = 4  # a token, about: no tokenizer is read while one types
_TEMPLATE = 20  # tokens that a template puts around a conversation, about


_FEW_STEPS = 20
_FACTORS = ("scale", "dropout", "loraplus_ratio")
# what says nothing to a method; the tokens that only two of them learn are no part of it
_NOT_OF: Mapping[str, tuple[str, ...]] = {
    "full": ("rank", *_FACTORS, "targets"),
    "ia3": ("rank", *_FACTORS),
    "bottleneck": _FACTORS,
    **dict.fromkeys(VIRTUAL, ("rank", *_FACTORS, "targets", "num_layers")),
}


@dataclass(frozen=True)
class Draft:
    """The form's content. ``texts`` are the settings as written; ``existing`` is the adapter of that name."""

    base: ModelRef
    data: str = ""
    adapter: str = ""
    texts: Mapping[str, str] = field(default_factory=lambda: DEFAULT_TEXTS)
    existing: adapters.Existing | None = None

    @classmethod
    def of(cls, request: Train) -> "Draft":
        """The form that makes this request."""
        texts = {each.name: each.write(request.settings.get(each.name, each.default)) for each in SETTINGS}
        return cls(request.model, request.data, request.adapter, texts)

    def with_text(self, name: str, text: str) -> "Draft":
        return replace(self, texts={**self.texts, name: text})

    def settings(self) -> dict[str, Value]:
        """Values by mlx-lm's names. Raises OptionError."""
        values = {each.name: each.parse(self.texts[each.name]) for each in SETTINGS}
        return {name: value for name, value in values.items() if value is not None}

    def problems(self, report: DataReport | None) -> dict[str, str]:
        """One sentence by field that keeps the run from starting; ``report`` None where the data was not read."""
        found = {}
        if not self.data.strip():
            found["data"] = "Name a .jsonl file, or a folder with train.jsonl."
        elif report is not None and not report.good:
            found["data"] = (
                f"The data has {_counted(report.problem_count, 'problem')}; correct the first ones named here."
            )
        try:
            adapters.checked_name(self.adapter)
        except InputError as error:
            found["adapter"] = _sentence(str(error))
        for setting in SETTINGS:
            try:
                setting.parse(self.texts[setting.name])
            except InputError as error:
                found[setting.name] = _sentence(str(error))
        for name, parse in (("keys", parse_keys), ("memory", parse_memory)):
            try:
                if self.texts[name].strip():
                    parse(self.texts[name])
            except InputError as error:
                found[name] = _sentence(str(error))
        try:
            if report is not None and report.good and report.schema is not None:
                refuse_rows(self.texts["objective"], report.schema)
        except InputError as error:
            found["objective"] = _sentence(str(error))
        return found

    @property
    def foreign(self) -> frozenset[str]:
        """Settings that say something to other objectives or methods alone."""
        method = self.texts["method"]
        tokens = () if method in VIRTUAL else ("virtual_tokens",)
        own = KINDS[self.texts["objective"]].settings
        return (SPECIAL - set(own)) | {*_NOT_OF.get(method, ()), *tokens}

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the settings that are not as they would be by themselves."""
        return tuple(name for name, text in self.texts.items() if text.strip() != DEFAULT_TEXTS[name])

    def request(self, *, resume: bool = False) -> Train:
        """What the engine is asked: what differs from the defaults. Raises OptionError for what is not possible."""
        settings = {
            name: value
            for name, value in self.settings().items()
            if value != BY_NAME[name].default and name not in self.foreign  # which a run would refuse
        }
        if "iters" in settings:
            settings.pop("epochs", None)
        base = replace(self.base, adapter=None)  # what is learned is learned beside the base alone
        return Train(base, self.data.strip(), self.adapter.strip(), settings, resume)

    def unused(self, report: DataReport | None) -> dict[str, str]:
        """Settings that mean nothing beside the others, or for this data, and why: sentences by field."""
        found = {}
        if self.texts["iters"].strip():
            found["epochs"] = "Not used: iters says how long."
        if report is not None and report.schema == "text":
            found["learn"] = "Not used: rows of text are learned whole."
        return found

    def summary(self, report: DataReport, packable: bool) -> str:
        """How long it trains, in words; ``packable``: whether short rows can share a long one in this model."""
        settings, rows = self.settings(), report.train_rows
        alone = settings["objective"] != "sft" or settings["method"] in VIRTUAL
        packed = packable and not alone and settings["pack"] != "no"
        longest = int(settings["max_seq_length"])
        if packed and settings["pack"] == "yes":
            each = report.mean / _CHARACTERS + (0 if report.schema == "text" else _TEMPLATE)
            rows = min(rows, math.ceil(report.train_rows * each / longest))
        per_epoch = math.ceil(rows / int(settings["batch_size"]))
        count, times = steps(settings, per_epoch), epochs(settings, per_epoch)
        about = "About " if packed and "iters" not in settings else ""
        often = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"
        passes = f"{often} time{'' if often == '1' else 's'} through {_counted(report.train_rows, 'row')}"
        share = f": short rows share one of {longest:,} tokens" if rows < report.train_rows else ""
        more = " So few steps teach little: raise epochs." if count < _FEW_STEPS else ""
        return f"{about}{_counted(count, 'step')}, {passes}{share}.{more}"


def free_name(data: str) -> str:
    """A name for an adapter that this data teaches, which nothing has yet."""
    stem = data.rstrip("/").rpartition("/")[2].removesuffix(".jsonl")
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in stem).strip("-._")[:50]
    name = clean or "adapter"
    number = 2
    found = name
    while adapters.existing(found) is not None:
        found, number = f"{name}-{number}", number + 1
    return found


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _sentence(text: str) -> str:
    return (
        f"{text[:1].upper()}{text[1:]}."
        if not text[:1].isdigit() and "=" not in text.split(" ")[0]
        else f"{text}."
    )
