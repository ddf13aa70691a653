"""What a person has filled in to train an adapter, and what is still wrong with it: sentences by field."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from macllm.adapters import kept as adapters
from macllm.engine.protocol import ModelRef, Train
from macllm.errors import InputError
from macllm.tune.rows import DataReport
from macllm.tune.settings import BY_NAME, FORM, Value, epochs, steps

DEFAULT_TEXTS: Mapping[str, str] = MappingProxyType({each.name: each.write(each.default) for each in FORM})


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
        texts = {
            each.name: each.write(request.settings.get(each.name, each.default))
            if each.name in BY_NAME
            else ""
            for each in FORM
        }
        return cls(request.model, request.data, request.adapter, texts)

    def with_text(self, name: str, text: str) -> "Draft":
        return replace(self, texts={**self.texts, name: text})

    def settings(self) -> dict[str, Value]:
        """Values by mlx-lm's names. Raises OptionError."""
        values = {each.name: each.parse(self.texts[each.name]) for each in FORM}
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
        for setting in FORM:
            try:
                setting.parse(self.texts[setting.name])
            except InputError as error:
                found[setting.name] = _sentence(str(error))
        return found

    def request(self, *, resume: bool = False) -> Train:
        """What the engine is asked. Raises OptionError for a setting that is not possible."""
        settings = self.settings()
        if "iters" in settings:
            del settings["epochs"]
        return Train(self.base, self.data.strip(), self.adapter.strip(), settings, resume)

    def summary(self, rows: int) -> str:
        """How long it trains, in words."""
        settings = self.settings()
        per_epoch = math.ceil(rows / int(settings["batch_size"]))
        count = steps(settings, per_epoch)
        times = epochs(settings, per_epoch)
        often = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"
        return f"{_counted(count, 'step')}, {often} times through {_counted(rows, 'row')}."


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
