"""What the engine's process says, on its way out: events gathered and written as one line every 33 ms."""

import json
import threading
import time
from collections.abc import Callable

from macllm.engine.events import Event, Loading, Prefill
from macllm.engine.training_events import TrainingEvent
from macllm.engine.wire import to_json

LINE_EVERY_S = 0.033
LINE_EVENTS = 512  # at most; after a pause of the reader the rest follows in further lines
_NEWEST_COUNTS = (Loading, Prefill)  # of which a line holds one a request


class Outbox:
    """Takes events from any thread without ever waiting, and writes them from one of its own.

    A line goes out at once where the last is 33 ms old, else when it is. Events keep their order; of a
    request's Loading and Prefill only the newest in a line is sent.
    """

    def __init__(self, write: Callable[[bytes], object], every_s: float = LINE_EVERY_S) -> None:
        self._write = write
        self._every_s = every_s
        self._pending: list[tuple[int, Event | TrainingEvent | None]] = []  # None: the request ended
        self._newest: dict[tuple[int, type], int] = {}  # where in pending it is
        self._filled = threading.Condition()
        threading.Thread(target=self._run, name="macllm-outbox", daemon=True).start()

    def put(self, request: int, event: Event | TrainingEvent) -> None:
        """Sends ``event`` of ``request``."""
        with self._filled:
            if isinstance(event, _NEWEST_COUNTS):
                place = self._newest.setdefault((request, type(event)), len(self._pending))
                if place < len(self._pending):
                    self._pending[place] = (request, event)
                    return
            self._pending.append((request, event))
            self._filled.notify()

    def end(self, request: int) -> None:
        """Says that nothing more comes of ``request``."""
        with self._filled:
            self._pending.append((request, None))
            self._filled.notify()

    def _run(self) -> None:
        last = -self._every_s
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._pending)
            early = last + self._every_s - time.monotonic()
            if early > 0:
                time.sleep(early)
            with self._filled:
                batch, self._pending = self._pending[:LINE_EVENTS], self._pending[LINE_EVENTS:]
                self._newest.clear()
            last = time.monotonic()
            self._write(_line(batch))


def _line(batch: list[tuple[int, Event | TrainingEvent | None]]) -> bytes:
    events = [[request, to_json(event)] for request, event in batch if event is not None]
    ended = [request for request, event in batch if event is None]
    return json.dumps({"events": events, "ended": ended}, separators=(",", ":")).encode() + b"\n"
