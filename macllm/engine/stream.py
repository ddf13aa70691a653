"""What comes of a request: batches of events as an engine pushes them, for one reader that may leave any time."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

from macllm.engine.events import Event, Machine
from macllm.engine.protocol import Request
from macllm.engine.training_events import TrainingEvent

Batch: TypeAlias = tuple[Event | TrainingEvent, ...]
Listener: TypeAlias = Callable[[Batch | None], None]  # None: the stream ended


class Channel:
    """An engine's end of a stream. ``on_cancel`` is called once, and not after the end."""

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._on_cancel: Callable[[], None] | None = on_cancel
        self._batches: deque[Batch] = deque()
        self._ended = False
        self._abandoned = False
        self._listener: Listener | None = None
        self._cancel_listener: Callable[[], None] | None = None
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def push(self, batch: Batch) -> None:
        """Adds a batch."""
        if self._listener is not None:
            self._listener(batch)
        if not self._abandoned:
            self._batches.append(batch)
            self._changed.set()

    def end(self) -> None:
        """Nothing more comes."""
        if self._ended:
            return
        self._ended, self._on_cancel = True, None
        if self._listener is not None:
            self._listener(None)
        self._changed.set()

    def cancel(self) -> None:
        on_cancel, self._on_cancel = self._on_cancel, None
        if on_cancel is not None:
            on_cancel()
            if self._cancel_listener is not None:
                self._cancel_listener()

    def abandon(self) -> None:
        self._abandoned = True
        self._batches.clear()
        self._changed.set()
        self.cancel()

    def abandon_soon(self) -> None:
        """The same from wherever the garbage collector runs, in another thread say."""
        if self._on_cancel is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.abandon)

    def observe(self, listener: Listener, on_cancel: Callable[[], None] | None) -> None:
        for batch in self._batches:
            listener(batch)
        if self._ended:
            listener(None)
        self._listener, self._cancel_listener = listener, on_cancel

    async def next(self) -> Batch:
        while not self._batches:
            if self._ended or self._abandoned:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        batch = tuple(event for batch in self._batches for event in batch)
        self._batches.clear()
        return batch


class Stream:
    """What comes of one request: ``async for batch in stream`` gives tuples of events, in order.

    Batches that came while the reader was away are given as one. Leaving it (``aclose``, no reference any more,
    a reader whose task is cancelled) cancels the request. For one reader.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def cancel(self) -> None:
        """Stops the request within one step. The stream still has its end to tell: Done("cancelled")."""
        self._channel.cancel()

    async def aclose(self) -> None:
        """Leaves the stream; nothing more is read of it."""
        self._channel.abandon()

    def observe(self, listener: Listener, on_cancel: Callable[[], None] | None = None) -> None:
        """Gives ``listener`` every batch as it arrives, whether or not it is read, and None at the end.

        ``on_cancel`` is called where the request is cancelled. To be asked for before anything is read.
        """
        self._channel.observe(listener, on_cancel)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Batch:
        try:
            return await self._channel.next()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def __del__(self) -> None:
        self._channel.abandon_soon()


class Engine(Protocol):
    """What an app needs of an engine."""

    @property
    def machine(self) -> Machine | None:
        """What it runs on; None until it said so."""

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""

    @property
    def problem(self) -> str:
        """The sentence that says why it died; empty while it did not."""

    async def start(self) -> None:
        """Starts it, also after a crash; returns when it answers. Raises EngineDied."""

    def submit(self, request: Request) -> Stream:
        """Asks for something. Several requests may be open at once; on a dead engine the stream says Failed."""

    async def close(self) -> None:
        """Ends it. What is still open fails."""


class EngineAround:
    """An engine that passes everything on to another; subclasses do more, or less."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def machine(self) -> Machine | None:
        return self._engine.machine

    @property
    def alive(self) -> bool:
        return self._engine.alive

    @property
    def problem(self) -> str:
        return self._engine.problem

    async def start(self) -> None:
        """See :class:`Engine`."""
        await self._engine.start()

    def submit(self, request: Request) -> Stream:
        """See :class:`Engine`."""
        return self._engine.submit(request)

    async def close(self) -> None:
        """See :class:`Engine`."""
        await self._engine.close()
