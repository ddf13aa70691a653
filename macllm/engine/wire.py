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

_KINDS: Mapping[str, type] = {
    kind.__name__: kind
    for union in (events.Event, training_events.TrainingEvent, protocol.Request)
    for kind in get_args(union)
}


def to_json(value: object) -> dict[str, Any]:
    """A request or an event as a JSON object."""
    return {"type": type(value).__name__, **_fields(value)}


def from_json(raw: Any) -> Any:
    """The request or event that :func:`to_json` made. Raises InputError naming the key that is wrong."""
    kind = _KINDS.get(raw.get("type", "")) if isinstance(raw, Mapping) else None
    if kind is None:
        found = raw.get("type") if isinstance(raw, Mapping) else type(raw).__name__
        raise InputError(f"{found!r} is no request or event of macllm (expected one of {', '.join(_KINDS)})")
    return _object(kind, {name: value for name, value in raw.items() if name != "type"}, kind.__name__)


def _fields(value: Any) -> dict[str, Any]:
    shown = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if content != _default(field):
            shown[field.name] = _plain(content)
    return shown


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _object(kind: type, raw: Mapping[str, Any], place: str) -> Any:
    hints = _hints(kind)
    unknown = next((name for name in raw if name not in hints), None)
    if unknown is not None:
        raise InputError(f"{place}: no field {unknown!r} (expected one of {', '.join(hints)})")
    values = {name: _typed(hints[name], value, f"{place}.{name}") for name, value in raw.items()}
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise InputError(f"{place}: {error}") from None


def _typed(hint: Any, raw: Any, place: str) -> Any:
    """``raw`` as the annotated type: dataclasses, tuples, mappings, unions with None and plain values."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return raw
    if origin in (types.UnionType, typing.Union):
        if raw is None and type(None) in inner:
            return None
        kinds = [one for one in inner if one is not type(None)]
        return _typed(kinds[0], raw, place) if len(kinds) == 1 else raw
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(raw, Mapping):
            raise InputError(f"{place}: {raw!r} is not an object")
        return _object(hint, raw, place)
    if origin is tuple:
        if not isinstance(raw, list):
            raise InputError(f"{place}: {raw!r} is not a list")
        return tuple(_typed(inner[0], item, f"{place}[{index}]") for index, item in enumerate(raw))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(raw, Mapping):
            raise InputError(f"{place}: {raw!r} is not an object")
        return {_typed(inner[0], key, place): _typed(inner[1], value, place) for key, value in raw.items()}
    if hint is int and isinstance(raw, str):  # JSON's keys are strings
        return int(raw)
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(hint, type) and not isinstance(raw, hint):
        raise InputError(f"{place}: {raw!r} is not of type {hint.__name__}")
    return raw
