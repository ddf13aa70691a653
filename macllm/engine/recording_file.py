"""The recording's format: JSON lines, first what it is, then each request, batch of events and cancel with its time.

``{"macllm_recording": 1, "version": "0.1.0", "machine": {...}}``, then ``{"t": seconds, "id": n, "request": {...}}``,
``{"t": seconds, "events": [[n, {...}], ...], "ended": [n, ...]}`` and ``{"t": seconds, "cancel": n}``. Requests and
events are as ``macllm.engine.wire`` has them; events of 0 are the engine's own.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from macllm import __version__
from macllm.engine.events import Event, Machine
from macllm.engine.protocol import Request
from macllm.engine.stream import Batch
from macllm.engine.training_events import TrainingEvent
from macllm.engine.wire import from_json, to_json
from macllm.errors import InputError

FORMAT = 1
_EVENTS = (*get_args(Event), *get_args(TrainingEvent))


@dataclass(frozen=True)
class Exchange:
    """A request and what came of it: each batch with the seconds after the request."""

    request: Request
    batches: tuple[tuple[float, Batch], ...]
    at: float = 0.0  # seconds after the recording began
    cancelled: float | None = None  # seconds after the request
    complete: bool = True  # else it was still under way when the recording ended


@dataclass(frozen=True)
class Recording:
    """All that was said, in the order in which it was asked."""

    machine: Machine | None
    exchanges: tuple[Exchange, ...]


def write_recording(path: Path, machine: Machine, exchanges: Sequence[Exchange]) -> None:
    """Writes a recording that nobody recorded, or one that was read."""
    entries: list[tuple[float, dict[str, Any]]] = []
    for number, exchange in enumerate(exchanges, start=1):
        entries.append((exchange.at, {"id": number, "request": to_json(exchange.request)}))
        if exchange.cancelled is not None:
            entries.append((exchange.at + exchange.cancelled, {"cancel": number}))
        end = 0.0
        for after, batch in exchange.batches:
            end = after
            events = [[number, to_json(event)] for event in batch]
            entries.append((exchange.at + after, {"events": events, "ended": []}))
        if exchange.complete:
            entries.append((exchange.at + end, {"events": [], "ended": [number]}))
    entries.sort(key=lambda entry: entry[0])  # stable: what was added first stays first
    head = {"macllm_recording": FORMAT, "version": __version__, "machine": to_json(machine)}
    lines = [head, *({"t": round(at, 6), **entry} for at, entry in entries)]
    path.write_text(
        "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), encoding="utf-8"
    )


def read_recording(source: Path | Iterable[str]) -> Recording:
    """Reads a recording strictly. Raises InputError naming file and line."""
    if not isinstance(source, Path):
        return _Reader("recording").read(source)
    try:
        with source.open(encoding="utf-8") as lines:
            return _Reader(str(source)).read(lines)
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}; give a file that `--record` wrote") from None
    except UnicodeDecodeError:
        raise InputError(f"{source}: is not text; give a file that `--record` wrote") from None


class _Wrong(Exception):
    """What is wrong with the line being read."""


@dataclass
class _Track:
    """A request and what was read of its stream so far."""

    request: Request
    at: float
    batches: list[tuple[float, Batch]] = field(default_factory=list)
    cancelled: float | None = None
    ended: bool = False


class _Reader:
    """Reads lines; ``name`` is what messages call them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tracks: dict[int, _Track] = {}

    def read(self, lines: Iterable[str]) -> Recording:
        machine: Machine | None = None
        number = 0
        try:
            for number, line in enumerate(lines, start=1):
                entry = _object(line)
                if number == 1:
                    machine = _head(entry)
                else:
                    self._take(entry)
        except (_Wrong, InputError) as error:
            raise InputError(f"{self._name}:{number}: {error}; record it again") from None
        if number == 0:
            raise InputError(f"{self._name}:1: there is nothing in it; record it again")
        return Recording(machine, tuple(_exchange(track) for track in self._tracks.values()))

    def _take(self, entry: dict[str, Any]) -> None:
        at = entry.pop("t", None)
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < math.inf:
            raise _Wrong(f"t={at!r} is not a number of seconds")
        if entry.keys() == {"id", "request"}:
            self._begin(entry["id"], entry["request"], at)
        elif entry.keys() == {"events", "ended"}:
            self._hear(_list(entry["events"]), at)
            for number in _list(entry["ended"]):
                self._open(number).ended = True
        elif entry.keys() == {"cancel"}:
            track = self._open(entry["cancel"])
            track.cancelled = at - track.at
        else:
            raise _Wrong(f"{', '.join(entry) or 'nothing'} beside t is no request, no events and no cancel")

    def _begin(self, number: Any, raw: Any, at: float) -> None:
        if type(number) is not int or number < 1 or number in self._tracks:
            raise _Wrong(f"id={number!r} is not a new whole number above 0")
        request = from_json(raw)
        if not isinstance(request, get_args(Request)):
            raise _Wrong(f"{type(request).__name__} is no request")
        self._tracks[number] = _Track(request, at)

    def _hear(self, events: list[Any], at: float) -> None:
        batches: dict[int, list[Event | TrainingEvent]] = {}
        for item in events:
            if not isinstance(item, list) or len(item) != 2:
                raise _Wrong(f"{item!r} is not an id with its event")
            number, event = item[0], from_json(item[1])
            if not isinstance(event, _EVENTS):
                raise _Wrong(f"{type(event).__name__} is no event")
            if number != 0:  # the engine's own
                self._open(number)
                batches.setdefault(number, []).append(event)
        for number, batch in batches.items():
            track = self._tracks[number]
            track.batches.append((at - track.at, tuple(batch)))

    def _open(self, number: Any) -> _Track:
        track = self._tracks.get(number) if isinstance(number, int) else None
        if track is None or track.ended:
            raise _Wrong(f"no request {number!r} is under way here")
        return track


def _object(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise _Wrong(f"{type(entry).__name__} is not an object")
    return entry


def _head(entry: dict[str, Any]) -> Machine | None:
    found = entry.get("macllm_recording")
    if found is None:
        raise _Wrong('not a recording of macllm (expected {"macllm_recording": 1, ...})')
    if found != FORMAT:
        raise _Wrong(f"format {found!r} is not what this macllm reads ({FORMAT})")
    if entry.get("machine") is None:
        return None  # it never said
    machine = from_json(entry["machine"])
    if not isinstance(machine, Machine):
        raise _Wrong(f"machine: {type(machine).__name__} is not Machine")
    return machine


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Wrong(f"{value!r} is not a list")
    return value


def _exchange(track: _Track) -> Exchange:
    return Exchange(track.request, tuple(track.batches), track.at, track.cancelled, track.ended)
