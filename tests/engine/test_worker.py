"""The engine's process at its ends: how lines go out, when it ends, and that what is printed stays out of them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import chatty
import pytest

from macllm.engine.events import Counted, Event, Loading, Prefill, Token
from macllm.engine.outbox import LINE_EVENTS, Outbox
from macllm.engine.protocol import Generate
from macllm.engine.wire import from_json, to_json
from macllm.paths import child_environment

PATIENCE_S = 60


class Lines:
    """Takes an outbox's lines, and when each came, in seconds since the start."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.times: list[float] = []
        self._start = time.monotonic()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, line: bytes) -> None:
        self.times.append(time.monotonic() - self._start)
        self.lines.append(json.loads(line))
        self.open.wait(PATIENCE_S)

    def events(self, request: int) -> list[Event]:
        return [from_json(raw) for line in self.lines for number, raw in line["events"] if number == request]

    def wait_for_end(self, request: int) -> list[Event]:
        limit = time.monotonic() + PATIENCE_S
        while not any(request in line["ended"] for line in self.lines):
            assert time.monotonic() < limit
            time.sleep(0.002)
        return self.events(request)


def test_events_go_out_in_order_and_lines_no_more_often_than_said() -> None:
    lines = Lines()
    outbox = Outbox(lines, every_s=0.02)
    outbox.put(1, Token(0, "x"))
    while not lines.lines:  # the first goes out at once
        time.sleep(0.001)
    for number in range(1, 60):
        outbox.put(1, Token(number, "x"))
        time.sleep(0.001)
    outbox.end(1)
    assert chatty.ids(lines.wait_for_end(1)) == list(range(60))
    assert len(lines.lines) > 1
    # A line that comes late here may have left in time, so no pause between two says anything: but none is early.
    assert all(came >= 0.02 * before for before, came in enumerate(lines.times))


def test_of_progress_only_the_newest_in_a_line_counts() -> None:
    lines = Lines()
    outbox = Outbox(lines, every_s=0.0)
    lines.open.clear()  # the pipe is full
    outbox.put(9, Counted(1, 1))
    while not lines.lines:
        time.sleep(0.001)
    for done in range(5):
        outbox.put(1, Prefill(done, 4, 0))
        outbox.put(2, Prefill(done, 9, 0))
        outbox.put(1, Loading("m", done, 4))
    outbox.put(1, Token(1, "a"))
    outbox.put(1, Token(2, "b"))
    outbox.end(1)
    lines.open.set()
    assert lines.wait_for_end(1) == [Prefill(4, 4, 0), Loading("m", 4, 4), Token(1, "a"), Token(2, "b")]
    assert lines.events(2) == [Prefill(4, 9, 0)]


def test_what_gathered_while_nobody_read_comes_in_lines_of_a_bearable_length() -> None:
    lines = Lines()
    outbox = Outbox(lines, every_s=0.0)
    lines.open.clear()
    count = 3 * LINE_EVENTS
    for number in range(count):
        outbox.put(1, Token(number, ""))
    outbox.end(1)
    lines.open.set()
    assert chatty.ids(lines.wait_for_end(1)) == list(range(count))
    assert max(len(line["events"]) + len(line["ended"]) for line in lines.lines) == LINE_EVENTS


@contextmanager
def process(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """The worker's own process, without the client."""
    worker = subprocess.Popen(
        [sys.executable, "-P", *(command or ("-m", "macllm.engine.worker"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(os.environ),
    )
    assert worker.stdin is not None and worker.stdout is not None
    try:
        yield worker, worker.stdin, worker.stdout
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
        worker.stdin.close()


def say(pipe: IO[bytes], number: int, request: Generate) -> None:
    pipe.write(json.dumps({"id": number, "request": to_json(request)}).encode() + b"\n")
    pipe.flush()


@pytest.mark.parametrize(
    "request_now", [chatty.ask(tokens=None), chatty.ask("x" * 40_000)], ids=["decode", "prefill"]
)
def test_it_ends_at_once_when_nobody_asks_any_more(request_now: Generate) -> None:
    with process() as (worker, requests, answers):
        say(requests, 1, request_now)
        while not any(
            number == 1 and raw["type"] in ("Token", "Prefill")
            for number, raw in json.loads(answers.readline())["events"]
        ):
            pass
        requests.close()
        assert worker.wait(PATIENCE_S) == 0


NOISY = """
import os, threading, time
from macllm.engine import worker
pipes = worker._private_pipes
def noise():
    while True:
        print("a library says hello", flush=True)
        os.write(1, b'{"events": [[1, {}]], "ended": [1]}\\n')
        time.sleep(0.001)
def noisy_pipes():
    found = pipes()
    threading.Thread(target=noise, daemon=True).start()
    return found
worker._private_pipes = noisy_pipes
worker.main()
"""


def test_what_a_library_prints_is_not_taken_for_an_answer() -> None:
    with process("-c", NOISY) as (_, requests, answers):
        say(requests, 1, chatty.ask(tokens=50))
        tokens = 0
        while True:
            line = json.loads(answers.readline())
            assert all("type" in raw for _, raw in line["events"])
            tokens += sum(raw["type"] == "Token" for _, raw in line["events"])
            if 1 in line["ended"]:
                break
        assert tokens == 50
