"""The engine's own process, ``python -m macllm.engine.worker``: JSON lines in on stdin, JSON lines out on stdout.

In: ``{"id": n, "request": {...}}`` and ``{"cancel": n}``. Out: ``{"events": [[n, {...}], ...], "ended": [n, ...]}``;
0 is the process itself, whose first word is Machine. It ends when its stdin does: it does not outlive the
process that started it. ``macllm.engine.client`` is the other side. ``macllm.tune.worker`` is the same with what
fine-tunes.
"""

import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from macllm.engine.inbox import Inbox
    from macllm.engine.training import Trainer


def main(train: "Trainer | None" = None) -> NoReturn:
    """Serves until stdin ends; ``train`` as :class:`macllm.engine.service.Service` takes it."""
    requests, answers = _private_pipes()
    # what they import may print
    from macllm.engine.facts import machine
    from macllm.engine.inbox import Inbox
    from macllm.engine.outbox import Outbox
    from macllm.engine.service import Service

    outbox = Outbox(lambda line: _write(answers, line))
    outbox.put(0, machine())
    inbox = Inbox(outbox)
    service = Service(inbox, outbox, train)
    threading.Thread(target=_read, args=(inbox, requests), name="macllm-inbox", daemon=True).start()
    while True:
        service.turn()


def _private_pipes() -> tuple[int, int]:
    """The two pipes under numbers that nobody else knows: whatever a library prints goes to stderr."""
    requests, answers = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    sys.stdout.flush()
    os.dup2(2, 1)
    return requests, answers


def _read(inbox: "Inbox", requests: int) -> NoReturn:
    try:
        with open(requests, "rb") as lines:
            inbox.read(lines)
    finally:
        os._exit(0)  # at once, also in the middle of a step: nobody is left to answer


def _write(answers: int, line: bytes) -> None:
    view = memoryview(line)
    try:
        while view:
            view = view[os.write(answers, view) :]
    except OSError:  # nobody reads any more
        os._exit(0)


if __name__ == "__main__":
    main()
