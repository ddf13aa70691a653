"""The options of ``macllm finetune``: one for every setting of a run, from the table that recipes and the app share."""

import argparse
from collections.abc import Iterable, Mapping

from macllm.errors import OptionError
from macllm.tune.groups import grouped
from macllm.tune.settings import SETTINGS, Setting, Value

ALIASES: Mapping[str, str] = {"method": "--fine-tune-type"}  # as mlx-lm calls it


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds an option for every setting; :func:`settings_from` reads them."""
    for title, settings in grouped():
        _add_group(parser, title, settings)


def settings_from(args: argparse.Namespace) -> dict[str, Value]:
    """What was given, by the settings' names. Raises OptionError where steps and passes are both given."""
    found = {
        setting.name: value
        for setting in SETTINGS
        if (value := getattr(args, setting.name, None)) is not None
    }
    refuse_both(found, "--iters and --epochs")
    return found


def refuse_both(given: Mapping[str, Value], names: str) -> None:
    """Raises OptionError where a run is to last both so many steps and so many passes."""
    if "iters" in given and "epochs" in given:
        raise OptionError(f"{names} both say how long a run is; leave one of them out")


def over(recipe: Mapping[str, Value], given: Mapping[str, Value]) -> dict[str, Value]:
    """What was given over a recipe: of steps and passes, which say the same, the given one alone."""
    kept = {name: value for name, value in recipe.items() if name not in ("iters", "epochs")}
    lasts = {name: value for name, value in recipe.items() if name in ("iters", "epochs")}
    return {**kept, **({} if "iters" in given or "epochs" in given else lasts), **given}


def _add_group(parser: argparse.ArgumentParser, title: str, settings: Iterable[Setting]) -> None:
    group = parser.add_argument_group(title)
    for setting in settings:
        _add(group, setting)


def _add(group: "argparse._ArgumentGroup", setting: Setting) -> None:
    flag = f"--{setting.name.replace('_', '-')}"
    text = _help(setting)
    if setting.switch:
        group.add_argument(flag, dest=setting.name, action=argparse.BooleanOptionalAction, help=text)
    elif setting.name == "pack":
        group.add_argument(flag, dest="pack", action="store_const", const="yes", help=text)
        group.add_argument(
            "--no-pack", dest="pack", action="store_const", const="no", help="each row in one of its own"
        )
    else:
        flags = [flag, *([ALIASES[setting.name]] if setting.name in ALIASES else [])]
        group.add_argument(
            *flags, dest=setting.name, type=setting.parse, metavar=_metavar(setting), help=text
        )


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return f"{{{','.join(setting.choices)}}}"
    if setting.text:
        return "TEXT"
    return "N" if setting.whole else "X"


def _help(setting: Setting) -> str:
    text = setting.help
    if setting.default is not None and not setting.switch and "(default" not in text:
        text += f" ({setting.write(setting.default)})"
    return text.replace("%", "%%")
