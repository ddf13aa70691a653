"""Lines from a person at a terminal: editing, a history that lasts, a line to begin with, Ctrl-C for a reply."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from macllm import paths

_HISTORY_LENGTH = 1000


@contextlib.contextmanager
def interrupt_stops(cancel: threading.Event) -> Iterator[None]:
    """Ctrl-C sets ``cancel``: the reply ends between two steps and what came of it stays."""
    before = signal.signal(signal.SIGINT, lambda number, frame: cancel.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Line editing with a history that lasts."""
    try:
        import readline
    except ImportError:  # a Python built without it reads plain lines
        yield
        return
    file = paths.data_dir() / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LENGTH)
        with contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.write_history_file(file)


def ask(prompt: str, beginning: str) -> str:
    """A line that the person edits, starting from ``beginning``; empty where it is given up."""
    try:
        import readline
    except ImportError:
        return _line(prompt)
    readline.set_startup_hook(lambda: readline.insert_text(beginning))
    try:
        return _line(prompt)
    finally:
        readline.set_startup_hook(None)


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""
