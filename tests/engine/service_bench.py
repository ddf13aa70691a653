"""The engine's service without its process."""

import json
from collections.abc import Callable

from macllm.engine.events import Event, Stats
from macllm.engine.inbox import Inbox
from macllm.engine.protocol import Request
from macllm.engine.service import Service
from macllm.engine.training import Trainer
from macllm.engine.wire import to_json


class Bench:
    """A service without its process: requests go in as lines, what comes out is kept by request."""

    def __init__(self, train: Trainer | None = None) -> None:
        self.heard: dict[int, list[Event]] = {}
        self.ended: list[int] = []
        self.order: list[int] = []  # whose step it was
        self.on_event: Callable[[int, Event], None] = lambda number, event: None
        self.inbox = Inbox(self)  # type: ignore[arg-type]
        self.service = Service(self.inbox, self, train)  # type: ignore[arg-type]

    def put(self, number: int, event: Event) -> None:
        self.heard.setdefault(number, []).append(event)
        self.order.append(number)
        self.on_event(number, event)

    def end(self, number: int) -> None:
        self.ended.append(number)

    def send(self, number: int, request: Request) -> None:
        self.inbox.read([json.dumps({"id": number, "request": to_json(request)}).encode()])

    def cancel(self, number: int) -> None:
        self.inbox.read([b'{"cancel": %d}' % number])

    def run(self, *numbers: int) -> list[Event]:
        """Works until these have ended; the events of the last."""
        while not set(numbers) <= set(self.ended):
            self.service.turn()
        return self.heard[numbers[-1]]

    def answer(self, number: int, request: Request) -> list[Event]:
        self.send(number, request)
        return self.run(number)


def kinds(events: list[Event]) -> list[str]:
    names = [type(event).__name__ for event in events if not isinstance(event, Stats)]
    return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]
