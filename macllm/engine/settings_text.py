"""Sampling settings as people write them: their names, one line of help each, and values read from and put as text."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from macllm.engine.request import Limits, Sampling
from macllm.errors import OptionError

Kind: TypeAlias = Literal["number", "whole", "texts"]


@dataclass(frozen=True)
class Setting:
    """One thing that can be set: a field of Sampling or Limits.

    ``short`` is its name on a command line where that is another: ``temp``. ``none`` is what the value None
    means, where the field takes it.
    """

    field: str
    kind: Kind
    help: str
    short: str = ""
    of: type[Sampling] | type[Limits] = Sampling
    none: str = ""

    @property
    def name(self) -> str:
        """As it is written in an option or a slash command: ``top-p``."""
        return self.short or self.field.replace("_", "-")


SETTINGS: tuple[Setting, ...] = (
    Setting("temperature", "number", "randomness; 0 always takes the most likely token", short="temp"),
    Setting("top_k", "whole", "draw from the N most likely tokens; 0 is off"),
    Setting(
        "top_p", "number", "draw from the most likely tokens that together have this probability; 1 is off"
    ),
    Setting("min_p", "number", "drop tokens below this share of the most likely one's probability; 0 is off"),
    Setting("xtc_probability", "number", "chance of a step to leave out the most likely tokens"),
    Setting("xtc_threshold", "number", "probability above which XTC may leave a token out"),
    Setting("repetition_penalty", "number", "above 1 makes recent tokens less likely; 1 is off"),
    Setting("repetition_context", "whole", "tokens that the penalties look back at; 0 is all"),
    Setting("presence_penalty", "number", "taken once from the logit of a token that occurred"),
    Setting("frequency_penalty", "number", "taken from a token's logit for each occurrence"),
    Setting("dry_multiplier", "number", "strength of the penalty on repeated sequences; 0 is off"),
    Setting("dry_base", "number", "growth of that penalty with the sequence's length"),
    Setting("dry_allowed_length", "whole", "longest sequence that may repeat free of it"),
    Setting("dry_context", "whole", "tokens that it looks back at; 0 is all"),
    Setting("seed", "whole", "the same seed gives the same text", none="a new one each time"),
    Setting("max_tokens", "whole", "end after N tokens; 0 only reads the prompt", of=Limits, none="no limit"),
    Setting("stop", "texts", "end before any of these texts, | between them, \\n for a line end", of=Limits),
)

BY_FIELD = {setting.field: setting for setting in SETTINGS}
_BY_NAME = {name.replace("-", "_"): setting for setting in SETTINGS for name in (setting.field, setting.name)}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "|": "|", "\\": "\\"}
_ESCAPED = {character: "\\" + letter for letter, character in _ESCAPES.items()}


def find(name: str) -> Setting:
    """The setting of a name as people write it: ``temp``, ``top-p``, ``--top_p``. Raises OptionError."""
    plain = name.strip().lstrip("-").replace("-", "_").casefold()
    if plain in _BY_NAME:
        return _BY_NAME[plain]
    near = difflib.get_close_matches(plain, _BY_NAME, 1)
    hint = f"did you mean {_BY_NAME[near[0]].name}?" if near else f"there are {', '.join(names())}"
    raise OptionError(f"there is no setting '{name.strip()}' ({hint})")


def names() -> Iterator[str]:
    """The names to offer, in the order of the table."""
    return (setting.name for setting in SETTINGS)


def parse(text: str) -> tuple[str, Any]:
    """``temp=0.7`` as the field's name and its value, which is in the field's range. Raises OptionError."""
    name, equals, value = text.partition("=")
    if not equals:
        parts = text.split(maxsplit=1)  # "temp 0.7" says as much
        if len(parts) != 2:
            raise OptionError(f"'{text.strip()}' sets nothing; write NAME=VALUE, for example temp=0.7")
        name, value = parts
    setting = find(name)
    return setting.field, value_from(setting, value)


def value_from(setting: Setting, text: str) -> Any:
    """The value that ``text`` stands for. Raises OptionError, naming the setting and what it takes."""
    value = _texts(text) if setting.kind == "texts" else _number(setting, text.strip())
    changed: dict[str, Any] = {setting.field: value}
    replace(setting.of(), **changed)  # raises OptionError, naming the range
    return value


def text_of(setting: Setting, value: Any) -> str:
    """The text that :func:`value_from` reads as ``value``."""
    if setting.kind == "texts":
        escaped = ["".join(_ESCAPED.get(character, character) for character in each) for each in value]
        # what would be stripped at the ends, or read as "nothing", is kept by quotes
        joined = "|".join(escaped)
        quoted = joined != joined.strip() or joined.casefold() == "none" or joined[:1] == '"'
        return f'"{joined}"' if quoted else joined or "none"
    if value is None:
        return "none"
    return f"{value:g}" if setting.kind == "number" and float(f"{value:g}") == value else str(value)


def _number(setting: Setting, text: str) -> float | int | None:
    if setting.none and text.casefold() in ("none", ""):
        return None
    try:
        return int(text) if setting.kind == "whole" else float(text)
    except ValueError:
        what = "a whole number" if setting.kind == "whole" else "a number"
        also = " or none" if setting.none else ""
        raise OptionError(f"{setting.name}={text}: '{text}' is not {what}{also}") from None


def _texts(text: str) -> tuple[str, ...]:
    text = text.strip()
    if text.casefold() in ("none", ""):
        return ()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    parts = re.findall(r"(?:[^|\\]|\\.|\\$)*", text, re.DOTALL)  # an empty match follows each that is not
    found = [re.sub(r"\\(.)", _unescaped, part, flags=re.DOTALL) for part in parts if part]
    return tuple(found)


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])
