"""Other names for the keys of rows: ``question=prompt,answer=completion`` reads what a tool wrote with its own.

``instruction+input=prompt`` joins texts by a blank line, empty ones left out; ``messages=`` leaves a key out. All are
taken at once, so two keys may change places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from macllm.errors import InputError, OptionError

_JOIN = "\n\n"


@dataclass(frozen=True)
class Renamed:
    """``target`` is what stands under ``sources``; without one, they are left out."""

    sources: tuple[str, ...]
    target: str


@cache
def parse(text: str) -> tuple[Renamed, ...]:
    """What a person wrote. Raises OptionError for what names no keys."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        left, equals, target = part.partition("=")
        sources = tuple(source.strip() for source in left.split("+"))
        if not equals or not all(sources) or "=" in target:
            raise OptionError(
                f"keys={text!r} is not possible: {part!r} names no keys (expected such as "
                "question=prompt,answer=completion)"
            )
        found.append(Renamed(sources, target.strip()))
    targets = [one.target for one in found if one.target]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise OptionError(f"keys={text!r} is not possible: two keys would be {twice!r}; join them with +")
    return tuple(found)


def rename(raw: Mapping[str, Any], keys: Sequence[Renamed]) -> Mapping[str, Any]:
    """The row under its new keys. Raises InputError where one to take is not there, or one to set is there already."""
    if not keys:
        return raw
    taken = {source for one in keys for source in one.sources}
    found = {key: value for key, value in raw.items() if key not in taken}
    for one in keys:
        if not one.target:
            continue
        missing = next((source for source in one.sources if source not in raw), None)
        if missing is not None:
            there = ", ".join(repr(key) for key in list(raw)[:6]) or "none"
            raise InputError(f"there is no key {missing!r} to take as {one.target!r} (its keys: {there})")
        if one.target in found:
            raise InputError(
                f"it has {one.target!r} beside {'+'.join(one.sources)!r}, which is to become it; leave one of them "
                f"out, with {one.target}= for example"
            )
        found[one.target] = _value(raw, one)
    return found


def _value(raw: Mapping[str, Any], one: Renamed) -> Any:
    if len(one.sources) == 1:
        return raw[one.sources[0]]
    texts = [raw[source] or "" for source in one.sources]
    other = next(
        (name for name, text in zip(one.sources, texts, strict=True) if not isinstance(text, str)), None
    )
    if other is not None:
        raise InputError(f"{other!r} is no text and cannot be joined to others as {one.target!r}")
    return _JOIN.join(text for text in texts if text.strip())
