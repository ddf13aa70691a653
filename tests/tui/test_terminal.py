"""The real app in a real terminal on the real starter model: what a person does in the first minutes."""

import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import ROOT, Terminal

from macllm.hub.pull import pull

FIGURES = r"[\d.]+ tok/s · \d+ tok · TTFT"


@pytest.fixture
def home(macllm_home: Path, starter_gguf: Path) -> Path:
    """A data folder with the starter installed."""
    pull(str(starter_gguf), name="starter")
    return macllm_home


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory() as folder:  # short: the path of a socket has little room
        opened = Terminal(Path(folder), "chat", "starter", "--temp", "0", MACLLM_HOME=str(home))
        yield opened
        opened.close()


def test_a_first_conversation(terminal: Terminal) -> None:
    terminal.wait("starter")
    terminal.wait(r"0/8k")  # the model is loaded

    terminal.type("What is the capital of France?")
    terminal.wait(r"\d+ tok\b")
    terminal.press("Enter")
    terminal.wait("The capital of France is Paris")
    terminal.wait(FIGURES)

    terminal.type("Write a very long story about a lighthouse.")
    terminal.press("Enter")
    first = terminal.wait(_streaming)
    terminal.wait(lambda screen: screen != first)  # text and figures move
    terminal.press("Escape")
    terminal.wait("stopped")

    terminal.press("Up")  # the last message, to be edited
    terminal.wait("Editing your message")
    for _ in range(60):
        terminal.press("BSpace")
    terminal.type("What is the capital of Italy?")
    terminal.press("Enter")
    terminal.wait("Rome")
    terminal.wait("‹2/2›")
    terminal.wait(lambda screen: len(re.findall(FIGURES, screen)) == 2)  # this reply is whole too

    terminal.press("M-Up", "r")
    terminal.wait(lambda screen: screen.count("‹2/2›") == 2 and len(re.findall(FIGURES, screen)) == 2)

    terminal.press("M-Up", "M-Up", "[")
    terminal.wait("lighthouse")
    terminal.wait("‹1/2›")

    terminal.press("C-q")
    terminal.wait_for_end()
    terminal.start()
    screen = terminal.wait("What is the capital…")  # its title, in the list of chats
    assert "today" in screen
    terminal.press("C-o")
    terminal.wait("words of a title or a message")
    terminal.type("lighthouse")  # on a branch that was not shown at last
    terminal.wait(r"very long story about a.*\n")
    terminal.press("Enter")
    screen = terminal.wait("The capital of France is Paris")
    assert "Write a very long story about a lighthouse." in screen
    assert "‹1/2›" in screen
    assert "stopped" in screen


def test_a_wrong_name_is_said_before_any_screen_opens(macllm_home: Path) -> None:
    parent, child = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "macllm", "chat", "no-such-model"],
        stdin=child,
        stdout=child,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        timeout=60,
        check=False,
    )
    os.close(child)
    os.close(parent)
    assert done.returncode == 2
    assert b"no-such-model" in done.stderr
    assert b"Traceback" not in done.stderr


def _streaming(screen: str) -> bool:
    return "lighthouse" in screen and re.search(r"DECODE", screen) is not None
