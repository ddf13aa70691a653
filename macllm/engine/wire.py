"""Requests and events as JSON and back: what crosses the pipe is what a recording holds.

``{"type": "Token", "id": 3, ...}``: the class's name beside its fields, those at their default left out.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from macllm.engine import events, protocol, training_events
from macllm.errors import InputError

_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for union in (events.Event, training_events.TrainingEvent, protocol.Request)
    for kind in get_args(union)
}


def to_json(value: object) -> dict[str, Any]:
    """A request or an event as a JSON object."""
    return {"type": type(value).__name__, **_fields(value)}


def from_json(raw: Any) -> Any:
    """The request or event that :func:`to_json` made. Raises InputError naming the key that is wrong."""
    found = raw.get("type") if isinstance(raw, Mapping) else type(raw).__name__
    kind = _KINDS.get(found) if isinstance(raw, Mapping) and isinstance(found, str) else None
    if kind is None:
        raise InputError(f"{found!r} is no request or event of macllm (expected one of {', '.join(_KINDS)})")
    return _object(kind, {name: value for name, value in raw.items() if name != "type"}, kind.__name__)


def _fields(value: Any) -> dict[str, Any]:
    shown = {}
    kind: Any = type(value)
    for name, default in _defaults(kind):
        content = getattr(value, name)
        if content is not default and content != default:
            shown[name] = _plain(content)
    return shown


@functools.cache
def _defaults(kind: Any) -> tuple[tuple[str, object], ...]:
    """Each field's name and what it holds where nothing is said."""
    return tuple(
        (
            field.name,
            field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(kind)
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return _fields(value)


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _object(kind: type, raw: Mapping[str, Any], place: str) -> Any:
    hints = _hints(kind)
    unknown = next((name for name in raw if name not in hints), None)
    if unknown is not None:
        raise InputError(f"{place}: no field {unknown!r} (expected one of {', '.join(hints)})")
    values = {}
    for name, value in raw.items():
        hint = hints[name]
        # most fields are text and numbers, and there are hundreds a second
        values[name] = value if type(value) is hint else _typed(hint, value, f"{place}.{name}")
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise InputError(f"{place}: {error}") from None


def _typed(hint: Any, raw: Any, place: str) -> Any:
    """``raw`` as the annotated type: dataclasses, tuples, mappings, literals, unions and plain values."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return raw
    if origin in (types.UnionType, typing.Union):
        return _one_of(inner, raw, place)
    if origin is typing.Literal:
        if raw not in inner:
            raise InputError(f"{place}: {raw!r} is not one of {', '.join(map(str, inner))}")
        return raw
    if origin is tuple:
        if not isinstance(raw, list):
            raise InputError(f"{place}: {raw!r} is not a list")
        return tuple(_typed(inner[0], item, f"{place}[{index}]") for index, item in enumerate(raw))
    mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    if mapping or dataclasses.is_dataclass(hint):
        if not isinstance(raw, Mapping):
            raise InputError(f"{place}: {raw!r} is not an object")
        if mapping:
            return {
                _typed(inner[0], key, place): _typed(inner[1], value, place) for key, value in raw.items()
            }
        return _object(hint, raw, place)
    return _value(hint, raw, place)


def _one_of(kinds: tuple[Any, ...], raw: Any, place: str) -> Any:
    """``raw`` as the one of ``kinds`` that it already is, else as the first that is not None."""
    if raw is None and type(None) in kinds:
        return None
    fitting = next((one for one in kinds if type(raw) is one), None)
    return raw if fitting is not None else _typed(next(k for k in kinds if k is not type(None)), raw, place)


def _value(hint: Any, raw: Any, place: str) -> Any:
    number = isinstance(raw, int | float) and not isinstance(raw, bool)
    if hint is int and isinstance(raw, str) and raw.removeprefix("-").isdecimal():  # JSON's keys are strings
        return int(raw)
    if hint is float and number:
        return float(raw)
    if not isinstance(raw, hint) or (hint is int and isinstance(raw, bool)):
        raise InputError(f"{place}: {raw!r} is not of type {hint.__name__}")
    return raw
