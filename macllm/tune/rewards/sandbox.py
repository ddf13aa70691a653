"""Runs code that a model wrote against tests: in a process of its own, with bounds, and killed when its time is up.

What it bounds, and what it does not protect from, is in docs/finetuning-rewards.md.
"""

import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

_CHILD = Path(__file__).with_name("sandbox_child.py")
_MOST_OUTPUT = 64 * 1024  # bytes that are read of what a child reports
_MACOS_PROFILE = """\
(version 1)
(allow default)
(deny network*)
(deny signal)
(allow signal (target self))
(deny file-write*)
(allow file-write* (subpath "{folder}") (literal "/dev/null"))
"""


@dataclass(frozen=True)
class Bounds:
    """``seconds`` of CPU time and of waiting; bytes of memory, and of each file written."""

    seconds: float = 5.0
    memory: int = 1 << 30
    file: int = 1 << 24


class Sandbox:
    """A place to run code in; every run has a temporary folder of its own."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()

    def passed(self, code: str, tests: Sequence[str]) -> int:
        """How many of the tests ran to their end behind the code, in its namespace, one after the other.

        None passed where the code itself fails. What is printed is thrown away.
        """
        token = secrets.token_hex(16)  # that a test passed is told with it, and the code does not know it
        task = {"token": token, "code": code, "tests": list(tests), **asdict(self._bounds)}
        # its real path, for macOS reaches its temporary folder by a link
        with tempfile.TemporaryDirectory(prefix="macllm-code-", ignore_cleanup_errors=True) as name:
            folder = str(Path(name).resolve())
            told = self._told({**task, "folder": folder}, folder)
        reported = {line.removeprefix(f"{token} ") for line in told.splitlines() if line.startswith(token)}
        return len(reported & {str(index) for index in range(len(tests))})

    def _told(self, task: dict[str, object], folder: str) -> str:
        """What the child reports within its time."""
        child = subprocess.Popen(
            command(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        assert child.stdin is not None and child.stdout is not None
        try:
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(json.dumps(task).encode())
            # Python's own start is not the code's to answer for
            return _read(child.stdout, time.monotonic() + self._bounds.seconds + 1)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.stdout.close()
            child.wait()


def command(folder: str, platform: str = sys.platform) -> list[str]:
    """What is started, to work in ``folder``; on macOS within its own sandbox."""
    python = [sys.executable, "-I", str(_CHILD)]
    if platform == "darwin" and shutil.which("sandbox-exec") is not None:
        return ["sandbox-exec", "-p", _MACOS_PROFILE.format(folder=folder), *python]
    return python


def _environment(folder: str) -> dict[str, str]:
    """No tokens, no proxies, no home of the user's; libraries with one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    return {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", **threads}


def _read(stream: IO[bytes], deadline: float) -> str:
    """What comes until the end, the deadline or the most that is read."""
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while len(found) < _MOST_OUTPUT and (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                break
            part = os.read(stream.fileno(), 4096)
            if not part:
                break
            found += part
    return found.decode("utf-8", "replace")
