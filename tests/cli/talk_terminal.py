"""A plain chat in a pseudo-terminal, as a person types at it."""

import codecs
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 120.0
PROMPT = "> "


class Terminal:
    """``macllm chat`` under a terminal of its own."""

    def __init__(
        self, *words: str, home: Path, folder: Path, errors: Path | None = None, **environment: str
    ) -> None:
        parent, child = pty.openpty()
        variables = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "MACLLM_HOME": str(home), **environment}
        variables["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "macllm", "chat", *words],
            stdin=child,
            stdout=child,
            stderr=child if errors is None else errors.open("wb"),
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
        os.close(child)
        self._terminal = parent
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end inside a character
        self.raw = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    def until(self, pattern: str, start: int = 0) -> str:
        """Waits until what was shown since ``start`` matches; returns all of it, without the cursor's moves."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            shown = plain(self.raw[start:])
            if re.search(pattern, shown):
                return shown
            if select.select([self._terminal], [], [], 0.1)[0]:
                try:
                    self.raw += self._decoder.decode(os.read(self._terminal, 65536))
                except OSError:  # the other end is closed
                    break
        raise AssertionError(f"{pattern!r} did not come: {self.raw[start:]!r}")

    def press(self, keys: str) -> int:
        """Types; returns where the answer will start."""
        start = len(self.raw)
        os.write(self._terminal, keys.encode())
        return start

    def say(self, line: str) -> str:
        """Types a line, waits for the next prompt, and returns what was shown between the two."""
        start = self.press(line + "\n")
        shown = self.until(r"\n> $", start)
        return shown.partition("\n")[2].removesuffix(PROMPT)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def interrupt_line(self) -> None:
        """Interrupts while a line is typed: when the keys were read, and the next one is waited for.

        Python's readline waits for a key without looking whether a signal came just before; between the echo of a
        key and that wait there are microseconds in which an interrupt has no effect until the next one.
        """
        end = time.monotonic() + PATIENCE_S
        while _state(self.process.pid) not in "SI":  # asleep, which macOS calls idle after a while
            assert time.monotonic() < end
            time.sleep(0.001)
        self.interrupt()

    def ended(self) -> int:
        """The exit code."""
        return self.process.wait(PATIENCE_S)


def _state(pid: int) -> str:
    """The letter by which ps says what a process does."""
    file = Path(f"/proc/{pid}/stat")
    if file.exists():
        return file.read_text().rpartition(")")[2].split()[0]
    return subprocess.check_output(["ps", "-o", "state=", "-p", str(pid)], text=True).strip()[0]


def plain(text: str) -> str:
    """What is read of a terminal's output: readline switches bracketed paste on and off around a line."""
    return re.sub(r"\x1b\[\?2004[hl]", "", text).replace("\r", "")
