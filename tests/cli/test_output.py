"""What commands print: JSON, tables, sizes, and progress on a terminal and off it."""

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import macllm
from macllm.cli.output import print_json, print_table
from macllm.cli.progress import Progress
from macllm.units import size

ROOT = Path(macllm.__file__).parent.parent


def test_json_is_one_readable_object(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "Grüße 🦙\n", "tokens": [1, 2], "metrics": {"ttft_s": 0.25}}
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert "Grüße 🦙" in out


def test_a_table_in_a_pipe_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "size"), [("starter", "98 MB"), ("a[red]b", "4.4 GB")], right=(1,))
    assert capsys.readouterr().out == "name       size\nstarter   98 MB\na[red]b  4.4 GB\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (93_123_456, "93.1 MB"),
        (999_960_000, "1.0 GB"),
        (4_437_000_000, "4.4 GB"),
        (128e9, "128 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_sizes_in_words(count: float, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 10**15))
def test_a_size_is_right_within_its_digits(count: int) -> None:
    number, unit = size(count).split()
    scale = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(number) * scale == pytest.approx(count, rel=0.06, abs=0.5)


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_off_a_terminal_there_is_a_line_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("Downloading starter", 200_000_000, clock=clock) as progress:
        clock.now += 2.0  # the connection
        for done in range(0, 200_000_001, 1_000_000):
            progress.update(done)
            clock.now += 0.1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 11
    assert lines[0] == "Downloading starter: 0 % of 200 MB"
    assert lines[5] == "Downloading starter: 50 % of 200 MB, 10.0 MB/s, 10 s left"
    assert lines[10] == "Downloading starter: 100 % of 200 MB, 10.0 MB/s"


def test_work_that_is_done_at_once_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("Loading", 100, clock=clock) as progress:
        for done in range(101):
            progress.update(done)
            clock.now += 0.009
    assert capsys.readouterr().err == ""


def test_fast_work_gives_a_line_a_second_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("Loading", 250, unit="tensors", clock=clock) as progress:
        for done in range(251):
            progress.update(done)
            clock.now += 0.01
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "Loading: 40 % of 250 tensors",
        "Loading: 80 % of 250 tensors",
        "Loading: 100 % of 250 tensors",
    ]


def test_what_a_resumed_download_had_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("Downloading", 100_000_000, clock=clock) as progress:
        progress.update(80_000_000)
        clock.now += 10
        progress.update(90_000_000)
    assert capsys.readouterr().err.splitlines()[-1] == "Downloading: 90 % of 100 MB, 1.0 MB/s, 10 s left"


def test_without_a_total_a_line_comes_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("Reading", unit="tokens", clock=clock) as progress:
        for done in range(100):
            progress.update(done * 5)
            clock.now += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Reading: 10 tokens, 10 tokens/s"
    assert lines[1] == "Reading: 110 tokens, 10 tokens/s"
    assert len(lines) == 5


BAR = """
import time
from macllm.cli.progress import Progress
with Progress("Downloading starter", 100_000_000) as progress:
    for done in range(0, 100_000_001, 5_000_000):
        progress.update(done)
        time.sleep(0.03)
"""


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal_there_is_a_bar_with_rate_and_eta(colour: bool) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")},
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        "COLUMNS": "120",
    }
    text = on_terminal(BAR, environment if colour else {**environment, "NO_COLOR": "1"})
    assert "Downloading starter" in text
    assert "100.0/100.0 MB" in text
    assert "MB/s" in text
    assert "0:00:0" in text
    assert ("\x1b[38" in text or "\x1b[3" in text) == colour


def on_terminal(code: str, environment: dict[str, str]) -> str:
    """What ``code`` writes to stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment)
    os.close(theirs)
    data = b""
    while select.select([ours], [], [], 20)[0]:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        data += part
    os.close(ours)
    assert process.wait() == 0
    return data.decode()


def test_a_table_on_a_terminal_shows_brackets_as_they_are(run_python: Callable[..., str]) -> None:
    code = """
import sys
from macllm.cli.output import print_table
sys.stdout.isatty = lambda: True
print_table(("name",), [("a[red]b",)])
"""
    assert "a[red]b" in run_python(code)
