"""A real terminal for the tests: tmux runs the program, keys go in, the screen is read."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 90.0
_NOT_THE_TERMINALS = ("TMUX", "NO_COLOR", "CI", "COLUMNS", "LINES")  # other tests' or the runner's


class Terminal:
    """One tmux server with one window that runs ``python -m macllm WORDS``."""

    def __init__(
        self, folder: Path, *words: str, width: int = 120, height: int = 40, **environment: str
    ) -> None:
        self._socket = folder / "tmux"
        self._words = words
        self._size = (str(width), str(height))
        self._environment: Mapping[str, str] = {"PYTHONPATH": str(ROOT), **environment}
        self.start()

    def start(self) -> None:
        """Runs the program, anew where it has ended."""
        given = [word for name, value in self._environment.items() for word in ("-e", f"{name}={value}")]
        command = [sys.executable, "-m", "macllm", *self._words]
        width, height = self._size
        self._tmux("new-session", "-d", "-x", width, "-y", height, *given, *command)
        self._tmux("set-option", "-g", "escape-time", "0")

    def type(self, text: str) -> None:
        """Types text as it is."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Presses keys by tmux's names: ``Enter``, ``Escape``, ``C-q``, ``M-Up``."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """What the terminal shows, as text; empty when the program has ended."""
        return self._tmux("capture-pane", "-p", check=False)

    def wait(self, what: str | Callable[[str], object], patience_s: float = PATIENCE_S) -> str:
        """The screen once it matches a regular expression or a condition. Fails with the screen it saw last."""
        holds = what if callable(what) else lambda screen: re.search(what, screen)
        end = time.monotonic() + patience_s
        screen = ""
        while time.monotonic() < end:
            screen = self.screen()
            if holds(screen):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"the screen never showed {what!r}; at last it was:\n{screen}")

    def wait_for_end(self, patience_s: float = 20.0) -> None:
        """Waits until the program has left the terminal."""
        end = time.monotonic() + patience_s
        while self._alive():
            assert time.monotonic() < end, f"the program did not end:\n{self.screen()}"
            time.sleep(0.05)

    def pid(self) -> int:
        """The program's process."""
        return int(self._tmux("list-panes", "-F", "#{pane_pid}").split()[0])

    def close(self) -> None:
        """Ends whatever runs."""
        self._tmux("kill-server", check=False)

    def _alive(self) -> bool:
        command = ["tmux", "-S", str(self._socket), "has-session"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _tmux(self, *words: str, check: bool = True) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_THE_TERMINALS}
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *words],
            capture_output=True,
            text=True,
            check=False,
            env={**environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout
