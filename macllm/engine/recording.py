"""Keeps what an engine was asked and what it said, and plays it back: for demos, tests and bug reports."""

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from macllm import __version__
from macllm.engine.death import DIED
from macllm.engine.events import Counted, Done, Event, Failed, Machine, Stats
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Count, Request
from macllm.engine.recording_file import FORMAT, Exchange, Recording, read_recording, write_recording
from macllm.engine.stream import Batch, Channel, Engine, EngineAround, Stream
from macllm.engine.wire import to_json
from macllm.errors import InputError

__all__ = ["Exchange", "Recorder", "Recording", "ReplayEngine", "read_recording", "write_recording"]

Sleep = Callable[[float], Awaitable[None]]


class Recorder(EngineAround):
    """An engine that writes everything that passes to ``path``, a line each, as it passes.

    Raises InputError where the file is there already, or cannot be made. Where the disk is full say, it ends early,
    at a whole line: ``trouble`` is then why, and ``on_trouble`` is told so.
    """

    def __init__(self, engine: Engine, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(engine)
        self._clock = clock
        self._begun = clock()
        self._last_id = 0
        self._file: BinaryIO | None = _private_file(path)
        self._written = 0  # bytes, to the end of a line
        self._headed = False
        self._path = path
        self.trouble = ""
        self.on_trouble: Callable[[str], object] = lambda sentence: None

    async def start(self) -> None:
        """See :class:`Engine`."""
        await super().start()
        if self._headed and self.machine is not None:  # started again, after a crash
            self._note({"events": [[0, to_json(self.machine)]], "ended": []})
        self._head()

    def submit(self, request: Request) -> Stream:
        """See :class:`Engine`."""
        self._head()
        self._last_id += 1
        number = self._last_id
        self._note({"id": number, "request": to_json(request)})
        stream = super().submit(request)
        stream.observe(
            lambda batch: self._note(
                {
                    "events": [[number, to_json(event)] for event in batch or ()],
                    "ended": [] if batch is not None else [number],
                }
            ),
            lambda: self._note({"cancel": number}),
        )
        return stream

    async def close(self) -> None:
        """See :class:`Engine`; what the engine still says meanwhile is kept."""
        await super().close()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _head(self) -> None:
        if self._headed:
            return
        self._headed = True
        machine = to_json(self.machine) if self.machine is not None else None
        self._write({"macllm_recording": FORMAT, "version": __version__, "machine": machine})

    def _note(self, entry: dict[str, Any]) -> None:
        self._write({"t": round(self._clock() - self._begun, 6), **entry})

    def _write(self, entry: dict[str, Any]) -> None:
        line = (json.dumps(entry, separators=(",", ":")) + "\n").encode()
        if self._file is None:
            return
        try:
            sent = 0
            while sent < len(line):  # what does not wait in memory may be taken in parts
                sent += self._file.write(line[sent:])
            self._written += len(line)
        except OSError as error:  # what is recorded matters less than that it goes on
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                file.truncate(self._written)  # half a line could not be read
            with contextlib.suppress(OSError):
                file.close()
            self.trouble = f"{self._path}: the recording ends early: {error.strerror}"
            self.on_trouble(self.trouble)


class ReplayEngine:
    """An engine that says again what a recording holds; no model, no process.

    The n-th request of a kind is answered with the n-th recorded stream of that kind, at the recorded times or
    without pause. ``sleep`` waits seconds, for clocks that tests drive. Raises InputError for a damaged file.
    """

    def __init__(
        self,
        source: Path | Sequence[str] | Recording,
        pace: Literal["recorded", "instant"] = "recorded",
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._recording = source if isinstance(source, Recording) else read_recording(source)
        self._instant = pace == "instant"
        self._sleep = sleep
        self._played: Counter[str] = Counter()  # streams of each kind of request
        self._counted = Counted(-1, -1)
        self._players: dict[Channel, asyncio.Task[None]] = {}
        self._metrics: dict[Channel, Metrics] = {}  # the last said
        self._running = False
        self.machine: Machine | None = None
        self.alive = False
        self.problem = ""

    @property
    def requests(self) -> tuple[Request, ...]:
        """What was asked, in order."""
        return tuple(exchange.request for exchange in self._recording.exchanges)

    async def start(self) -> None:
        """See :class:`Engine`; also after a recorded crash."""
        self.machine, self.problem = self._recording.machine, ""
        self._running = self.alive = True

    def submit(self, request: Request) -> Stream:
        """See :class:`Engine`."""
        channel = Channel(lambda: self._cancel(channel))
        kind = type(request).__name__
        recorded = [one for one in self._recording.exchanges if type(one.request).__name__ == kind]
        index = self._played[kind]
        self._played[kind] += 1
        if not self._running:
            channel.push((Failed("the engine is not running; start it first", 1, DIED),))
            channel.end()
        elif index < len(recorded):
            self._players[channel] = asyncio.create_task(self._play(channel, recorded[index]))
        else:
            channel.push((self._beyond(kind, len(recorded)),))
            channel.end()
        return Stream(channel)

    async def close(self) -> None:
        """See :class:`Engine`."""
        self._running = self.alive = False
        self.problem = "the engine was closed"
        for channel in tuple(self._players):
            self._stop(channel, Failed(self.problem, 1, DIED))

    async def _play(self, channel: Channel, exchange: Exchange) -> None:
        before = 0.0
        for at, batch in exchange.batches:
            if self._instant:
                await asyncio.sleep(0)  # the screen takes its turn
            else:
                await self._sleep(max(0.0, at - before))
            before = at
            self._say(channel, batch)
        if not exchange.complete:
            self._say(channel, (Failed("the recording ends in the middle of this", 1, "RecordingEnded"),))
        self._forget(channel)
        channel.end()

    def _say(self, channel: Channel, batch: Batch) -> None:
        for event in batch:
            if isinstance(event, Stats | Done):
                self._metrics[channel] = event.metrics
            elif isinstance(event, Counted):
                self._counted = event
            elif isinstance(event, Failed) and event.kind == DIED:
                self.alive, self.problem = False, event.message
        channel.push(batch)

    def _cancel(self, channel: Channel) -> None:
        self._stop(channel, Done("cancelled", "", self._metrics.get(channel, Metrics())))

    def _stop(self, channel: Channel, last: Event) -> None:
        self._players[channel].cancel()
        self._forget(channel)
        channel.push((last,))
        channel.end()

    def _forget(self, channel: Channel) -> None:
        self._players.pop(channel, None)
        self._metrics.pop(channel, None)

    def _beyond(self, kind: str, recorded: int) -> Event:
        """The answer to what was not recorded. How often a draft is counted depends on how fast it is typed."""
        if kind == Count.__name__:
            return self._counted
        return Failed(
            f"the recording holds {recorded} {kind} requests and this is one more; record it again",
            2,
            "InputError",
        )


def check_place(path: Path) -> None:
    """Raises InputError where a recording could not be made; leaves nothing there."""
    _private_file(path).close()
    path.unlink()


def _private_file(path: Path) -> BinaryIO:
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(f"{path}: is there already; give a new file to record to") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be recorded to: {error.strerror}; give another place") from None
    return os.fdopen(number, "wb", buffering=0)  # a line is on the disk when it was said
