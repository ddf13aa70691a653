"""Recipes: the settings of a run in a TOML file, under the names of the settings table, and how one is begun."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from macllm.errors import InputError, OptionError
from macllm.tune.settings import BY_NAME, Value

# what a recipe may say beside the settings: what is taught by what, where it goes and who is told
PLACES = ("model", "data", "adapter_path", "report_to", "project_name", "steps_per_report")
# mlx-lm's keys that are no settings here, and what they are instead
_MLX_LM: Mapping[str, str] = {
    "fine_tune_type": "method",
    "lora_parameters": "rank, scale and dropout, each a key of its own",
    "lr_schedule": "schedule and warmup",
    "mask_prompt": 'what learn = "last" does',
    "optimizer_config": "weight_decay",
    "resume_adapter_file": "the option --resume",
    "config": "the option -c",
    "test": "not there: the test rows are not looked at",
    "train": "not needed: it always trains",
    "val_batches": "not needed: all validation rows are looked at",
    "test_batches": "not there: the test rows are not looked at",
    "clear_cache_threshold": "not needed",
    "trust_remote_code": "not there: no code of a model is run",
}


@dataclass(frozen=True)
class Recipe:
    """What a recipe says: ``settings`` by name, and ``places``, which are :data:`PLACES`."""

    settings: Mapping[str, Value] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


def read_recipe(file: Path) -> Recipe:
    """The recipe in ``file``; its paths are relative to where it lies.

    Raises InputError with file and line for what cannot be: a key or a value that is not known, no TOML at all.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{file}: there is no such recipe; `macllm finetune MODEL --data PATH --init` writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the recipe cannot be read ({error})") from None
    if file.suffix.lower() in (".yaml", ".yml", ".json"):
        raise InputError(f"{file}: {_other_format(text)}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file}: this is not valid TOML ({error})") from None
    settings: dict[str, Value] = {}
    places: dict[str, str] = {}
    for key, value in values.items():
        place = f"{file}:{_line(text, key)}"
        if key in PLACES:
            places[key] = _place(key, value, file, place)
        else:
            settings[key] = _setting(key, value, place)
    if "iters" in settings and "epochs" in settings:
        place = f"{file}:{_line(text, 'iters')}"
        raise OptionError(f"{place}: iters and epochs both say how long a run is; leave one of them out")
    return Recipe(settings, places)


def _setting(key: str, value: Any, place: str) -> Value:
    if key not in BY_NAME:
        raise OptionError(f"{place}: there is no setting {key!r}{_hint(key)}")
    if not isinstance(value, str | int | float):
        raise OptionError(f"{place}: {key} is {_kind(value)} (expected {BY_NAME[key].expected})")
    setting = BY_NAME[key]
    try:
        # as it stands where it is text, and not rounded where it is a number
        own = setting.parse(value if isinstance(value, str) else setting.write(value))
    except OptionError as error:
        raise OptionError(f"{place}: {error}") from None
    if own is None:
        raise OptionError(f"{place}: {key} is empty; give it a value, or remove the line")
    return value if isinstance(own, float) and isinstance(value, float) else own


def _place(key: str, value: Any, file: Path, place: str) -> str:
    if key == "steps_per_report":
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{place}: {key}={value!r} is not possible (expected a whole number from 1 on)")
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"{place}: {key}={value!r} is not possible (expected a text)")
    if key in ("data", "adapter_path"):
        beside = file.parent / Path(value).expanduser()
        # a data set of a hub is no path; a folder to write need not exist
        return str(beside) if key == "adapter_path" or beside.exists() else value
    if key == "model" and value.startswith((".", "~")):
        return str(file.parent / Path(value).expanduser())
    return value


def _hint(key: str) -> str:
    if key in _MLX_LM:
        return f"; here it is {_MLX_LM[key]}"
    close = difflib.get_close_matches(key, [*BY_NAME, *PLACES], n=1)
    return f" (did you mean {close[0]}?)" if close else "; `macllm finetune --help` lists them"


def _other_format(text: str) -> str:
    """Why a YAML file is refused, and what its keys are called here."""
    keys = dict.fromkeys(re.findall(r"^[\"']?([A-Za-z_]\w*)[\"']?\s*:", text, re.MULTILINE))
    kept = [key for key in keys if key in BY_NAME or key in PLACES]
    told = [f"{key} is {_MLX_LM[key]}" for key in keys if key in _MLX_LM]
    keep = "keeps its name" if len(kept) == 1 else "keep their names"
    names = f"; {', '.join(kept)} {keep}" if kept else ""
    return f"a recipe is TOML, with lines such as rank = 8{names}{''.join(f'; {each}' for each in told)}"


def _line(text: str, key: str) -> int:
    """The line, from 1, on which a key or a table of this name begins."""
    name = re.escape(key)
    found = re.search(rf"^[ \t]*(?:\[\[?[ \t]*)?[\"']?{name}[\"']?[ \t]*[=.\]]", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"
