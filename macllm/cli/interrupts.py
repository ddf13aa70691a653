"""Ctrl+C in two steps while long work runs: the first asks it to end well, the second ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

EXIT_INTERRUPTED = 130


class Interrupts:
    """While its block runs, the first SIGINT calls ``ask`` and the second ``leave``, then the process is gone.

    Both are called from a thread of their own: Python's handlers wait for the main thread, which may be in a
    computation of a minute. Only in the main thread; elsewhere it does nothing.
    """

    def __init__(self, ask: Callable[[], None], leave: Callable[[], None]) -> None:
        self._ask, self._leave = ask, leave
        self._count = 0
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._handler = signal.signal(signal.SIGINT, _nothing)
            self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, daemon=True, name="interrupts")
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._pipe is None:
            return
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGINT, self._handler)
        os.close(self._pipe[1])  # the thread reads the end
        self._thread.join()
        os.close(self._pipe[0])
        self._pipe = None

    def _watch(self) -> None:
        assert self._pipe is not None
        source = self._pipe[0]
        while data := os.read(source, 64):
            for _ in range(data.count(signal.SIGINT)):
                self._count += 1
                if self._count == 1:
                    self._ask()
                else:
                    self._leave()
                    os._exit(EXIT_INTERRUPTED)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Python writes to the pipe for signals alone that have a handler of its own."""
