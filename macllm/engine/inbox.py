"""What the engine's process is asked, as it comes in: lines become jobs on a queue, and cancel flags."""

import json
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from macllm.engine.events import Failed
from macllm.engine.outbox import Outbox
from macllm.engine.protocol import Request
from macllm.engine.wire import from_json
from macllm.errors import InputError


@dataclass(frozen=True, eq=False)
class Job:
    """One request under way. ``received`` is when it came (``time.perf_counter``). Equal only to itself."""

    id: int
    request: Request
    cancel: threading.Event
    received: float


class Inbox:
    """Read by one thread, emptied by another.

    A line that is no request is answered: under its id where it has one, else under 0.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._outbox = outbox
        self._cancels: dict[int, threading.Event] = {}  # of what has not ended

    def read(self, lines: Iterable[bytes]) -> None:
        """Takes lines until there are no more."""
        for line in lines:
            received = time.perf_counter()
            try:
                raw = json.loads(line)
                if not isinstance(raw, dict):
                    raise InputError(f"expected an object, found {type(raw).__name__}")
                self._take(raw, received)
            except (ValueError, RecursionError, InputError) as error:
                self._outbox.put(0, Failed(f"a line to the engine cannot be read: {error}", 2, "InputError"))

    def forget(self, job: int) -> None:
        """``job`` has ended: its id may be used again."""
        self._cancels.pop(job, None)

    def _take(self, raw: dict[str, Any], received: float) -> None:
        if "cancel" in raw:
            number = raw["cancel"]
            flag = self._cancels.get(number) if isinstance(number, int) else None
            if flag is not None:  # else it ended while the line was on its way
                flag.set()
            return
        number = raw.get("id")
        if type(number) is not int or number < 1:
            raise InputError(f"id={number!r} is not a whole number above 0")
        if number in self._cancels:
            raise InputError(f"id={number} is still under way")
        try:
            request = from_json(raw.get("request"))
            if not isinstance(request, get_args(Request)):
                raise InputError(f"{type(request).__name__} is an event (expected a request)")
        except InputError as error:
            self._outbox.put(number, Failed(str(error), error.exit_code, type(error).__name__))
            self._outbox.end(number)
            return
        job = Job(number, request, threading.Event(), received)
        self._cancels[number] = job.cancel
        self.jobs.put(job)
