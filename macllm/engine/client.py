"""The engine as its users see it: a process of its own, asked over a pipe, answering with streams of events.

Nothing here imports mlx, so a screen that uses it starts fast and survives whatever happens to the engine.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from macllm.engine.death import DIED, EngineDied, cause_of_death
from macllm.engine.events import Event, Failed, Machine
from macllm.engine.protocol import Request
from macllm.engine.stream import Channel, Engine, Stream
from macllm.engine.training_events import TrainingEvent
from macllm.engine.wire import from_json, to_json
from macllm.paths import child_environment

__all__ = ["Engine", "EngineClient", "EngineDied", "Stream"]

START_WITHIN_S = 60.0  # a cold disk, a busy machine
CLOSE_WITHIN_S = 2.0
_LONGEST_LINE = 2**26  # bytes
_KEPT_LINES = 20  # of its stderr


class EngineClient:
    """The real engine: a child process that imports MLX.

    ``worker`` is the module that it runs: one that fine-tunes too is ``macllm.tune.worker``. ``command`` starts
    another program in its place, for tests.
    """

    def __init__(
        self,
        command: tuple[str, ...] | None = None,
        *,
        worker: str = "macllm.engine.worker",
        start_within_s: float = START_WITHIN_S,
    ) -> None:
        # -P: a file in the user's folder must not be taken for a module of the same name
        self._command = command or (sys.executable, "-P", "-m", worker)
        self._start_within_s = start_within_s
        self._process: asyncio.subprocess.Process | None = None
        self._channels: dict[int, Channel] = {}
        self._last_id = 0
        self._stderr: deque[str] = deque(maxlen=_KEPT_LINES)
        self._tasks: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()
        self._answered = asyncio.Event()  # Machine was said, or it never will be
        self._closing = False
        self.machine: Machine | None = None
        self.alive = False
        self.problem = ""

    @property
    def pid(self) -> int | None:
        """The process, while it is alive."""
        return self._process.pid if self._process is not None and self.alive else None

    async def start(self) -> None:
        """Starts the process unless it is alive, and waits until it has said what it runs on.

        Raises EngineDied saying what it died of, or that it does not answer.
        """
        async with self._starting:
            if not self.alive:
                await self._spawn()
            try:
                await asyncio.wait_for(self._answered.wait(), self._start_within_s)
            except TimeoutError:
                words = self._last_words()
                said = f"; the last it said: {words}" if words else ""
                self._give_up(f"the engine did not answer within {self._start_within_s:g} seconds{said}")
                await self._finished()
        if not self.alive:
            raise EngineDied(self.problem)

    def submit(self, request: Request) -> Stream:
        """See :class:`Engine`. Returns at once."""
        self._last_id += 1
        number = self._last_id
        channel = Channel(lambda: self._send({"cancel": number}))
        if self.alive:
            self._channels[number] = channel
            self._send({"id": number, "request": to_json(request)})
        else:
            channel.push((_died(self.problem or "the engine is not running; start it first"),))
            channel.end()
        return Stream(channel)

    async def close(self) -> None:
        """Asks the process to end, then makes it end."""
        self._closing = True
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # it ends when this does
        try:
            await asyncio.wait_for(self._finished(), CLOSE_WITHIN_S)
        except TimeoutError:
            _kill(process)
            await self._finished()

    async def _spawn(self) -> None:
        self.machine, self.problem, self._closing = None, "", False
        self._stderr.clear()
        self._answered.clear()
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=child_environment(os.environ),
                start_new_session=True,  # Ctrl-C in the terminal is the app's to handle
                limit=_LONGEST_LINE,
            )
        except OSError as error:
            self.problem = f"the engine's process cannot be started: {error}"
            raise EngineDied(self.problem) from None
        self._process, self.alive = process, True
        errors = asyncio.create_task(self._read_stderr(process))
        self._tasks = [errors, asyncio.create_task(self._read(process, errors))]

    async def _read(self, process: asyncio.subprocess.Process, errors: "asyncio.Task[None]") -> None:
        """Hands out what the process says until it ends, then says why to all that are still waiting."""
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._receive(json.loads(line))
        except Exception as error:
            self._give_up(f"the engine's process said what its client does not understand ({error})")
        code = await process.wait()
        await asyncio.wait([errors], timeout=1.0)  # a grandchild may hold the pipe open
        self.alive = False
        if self._closing:
            self.problem = "the engine was closed"
        self.problem = self.problem or cause_of_death(code, self._last_words())
        for channel in self._channels.values():
            channel.push((_died(self.problem),))
            channel.end()
        self._channels.clear()
        self._answered.set()

    def _receive(self, message: Any) -> None:
        batches: dict[int, list[Event | TrainingEvent]] = {}
        for number, raw in message["events"]:
            batches.setdefault(number, []).append(from_json(raw))
        for event in batches.pop(0, ()):
            if isinstance(event, Machine):
                self.machine = event
                self._answered.set()
        for number, events in batches.items():
            if number in self._channels:
                self._channels[number].push(tuple(events))
        for number in message["ended"]:
            channel = self._channels.pop(number, None)
            if channel is not None:
                channel.end()

    async def _read_stderr(self, process: asyncio.subprocess.Process) -> None:
        """Keeps the last lines; a line may be of any length, or bytes of any kind."""
        assert process.stderr is not None
        rest = b""
        while part := await process.stderr.read(2**16):
            *lines, rest = (rest + part).split(b"\n")
            rest = rest[-(2**12) :]
            self._stderr.extend(line.decode("utf-8", "replace") for line in lines)
        self._stderr.append(rest.decode("utf-8", "replace"))

    def _last_words(self) -> str:
        return next((line.strip() for line in reversed(self._stderr) if line.strip()), "")

    def _send(self, message: Mapping[str, Any]) -> None:
        process = self._process
        if self.alive and process is not None and process.stdin is not None and not self._closing:
            process.stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def _give_up(self, problem: str) -> None:
        """Ends a process that is of no use, for a reason of ours."""
        assert self._process is not None
        self.problem = self.problem or problem
        _kill(self._process)

    async def _finished(self) -> None:
        await asyncio.wait(self._tasks)


def _died(problem: str) -> Failed:
    return Failed(problem, EngineDied.exit_code, DIED)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was faster
        process.kill()
