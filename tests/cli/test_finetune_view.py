"""A run on a terminal: every size has its picture, nothing is wider or higher than it, and the last frame stays."""

import io
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from macllm.cli.finetune_lines import Lines
from macllm.cli.finetune_live import Frame, LiveView
from macllm.cli.finetune_watch import Watched, ending_words, figures_words, use_words
from macllm.engine.training_events import Planned, Preparing, Sample, Saved, Trained, TrainStep, Validation

PLANNED = Planned(
    "starter", "mine", 1000, 50, 300, 2_442_240, 10**9, 12 * 10**9, notes=("50 rows were set aside",)
)


def step(number: int) -> TrainStep:
    return TrainStep(
        number,
        300,
        3 / number + 1,
        1e-5,
        0.8,
        900 * number,
        512.0,
        10**9,
        2 * 10**9,
        2.0 * number,
        200.0,
        0.5,
        99,
    )


def watched(steps: int = 120) -> Watched:
    made = Watched("starter", "/adapters/my own")
    made.take(PLANNED)
    for number in range(1, steps + 1):
        made.take(step(number))
        if number % 50 == 0:
            made.take(Validation(number, 2.0 - number / 100, best=True))
            made.take(Sample(number, "A question?\nAnd more", "An answer " * 60))
            made.take(Saved(number, "state"))
    return made


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (100, 30), (200, 50), (40, 8), (20, 4)])
@pytest.mark.parametrize("steps", [0, 1, 120])
def test_every_size_has_its_picture(size: tuple[int, int], steps: int) -> None:
    width, height = size
    lines = Frame(watched(steps), "fine-tuning starter -> mine").lines(width, height)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    assert lines[0].plain.startswith("fine-tuning starter"[: width - 1])


def test_a_small_terminal_shows_all_figures_and_both_curves() -> None:
    text = "\n".join(line.plain for line in Frame(watched(), "title").lines(60, 24))
    for told in (
        "step 120 of 300",
        "40%",
        "3 min 20 s left",
        "loss 1.0250",
        "validation 1.0000, best 1.0000 at step 100",
        "rate 1e-05",
        "gradient 0.8",
        "512 tok/s",
        "peak 2.0 GB of 12.0 GB",
        "saved at step 100",
        "★",
        "⠤⠒⠤ loss",
        "A question? And more",
        "→ An answer",
        "ctrl+c saves and stops",
    ):
        assert told in text, told


def test_before_the_first_step_the_plan_and_its_notes_are_told() -> None:
    text = "\n".join(line.plain for line in Frame(watched(0), "title").lines(80, 24))
    assert "300 steps to go" in text and "1,000 rows" in text and "note: 50 rows were set aside" in text


def test_how_far_the_base_was_asked_is_told_before_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    made = Watched("starter", "/adapters/mine")
    with Lines(made) as lines:
        for done in range(4, 1001, 4):
            made.take(Preparing(done, 1000))
            lines.show(Preparing(done, 1000))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 11 and told[-1].endswith("looking at the answers before learning: 1,000 of 1,000")
    assert "looking at the answers before learning: 1,000 of 1,000" in Frame(made, "t").lines(80, 24)[1].plain


def test_stopping_is_said_and_the_last_frame_stays() -> None:
    run = watched()
    file = io.StringIO()
    with LiveView(run, "title", Console(file=file, force_terminal=True, width=80, height=24)) as view:
        run.stopping = True
        view.stopping()
        lines = Frame(run, "title").lines(80, 24)
        assert lines[-1].plain.startswith("finishing this step and saving")
    left = file.getvalue().rpartition("\x1b[?1049l")[2]  # after the other screen is gone
    assert "step 120 of 300" in left and "loss 1.025" in left and "finishing" not in left


def test_how_it_ended_and_how_it_is_used() -> None:
    run = watched()
    run.take(Trained("early_stop", 120, "", 1.025, 1.0))
    assert ending_words(run) == (
        "/adapters/my own: finished early, since validation no longer got better after 120 steps, loss 1.0250, "
        "validation 1.0000 (step 100)"
    )
    assert use_words(run) == "macllm chat starter --adapter '/adapters/my own'"


def test_a_sample_cannot_command_the_terminal() -> None:
    run = watched()
    run.take(Sample(120, "\x1b[2J?", "\x1b]0;owned\x07 yes"))
    lines = [line.plain for line in Frame(run, "title").lines(80, 24)]
    assert any("yes" in line for line in lines) and not any("\x1b" in line for line in lines)


def test_an_objectives_own_figures_are_told() -> None:
    run = watched()
    run.take(replace(step(120), figures={"reward_mean": 0.75}))
    run.remarks.append("no more reports: the net is away")
    text = "\n".join(line.plain for line in Frame(run, "title").lines(80, 24))
    assert "reward mean 0.75" in text and "note: no more reports: the net is away" in text
    assert run.step is not None and figures_words(run.step) == ", reward mean 0.75"


_TWICE = """
import hashlib
from macllm.cli.finetune_live import LiveView
from macllm.cli.finetune_run import ask, leave
from macllm.cli.finetune_watch import Watched
from macllm.cli.interrupts import Interrupts
watched = Watched("starter", "/adapters/mine")
view = LiveView(watched, "title")
with Interrupts(lambda: ask(watched, view), lambda: leave(watched, view)), view:
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # in C without the interpreter's lock, as a step is
"""


def test_ended_at_once_the_terminal_is_given_back() -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm-256color"}
    with subprocess.Popen([sys.executable, "-c", _TWICE], stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b""
        for awaited in (b"ctrl+c saves and stops", b"ctrl+c again ends at once"):
            while awaited not in shown:
                shown += os.read(leader, 65536)
            process.send_signal(signal.SIGINT)
        with suppress(OSError):  # how Linux tells that nobody writes any more
            while part := os.read(leader, 65536):
                shown += part
    os.close(leader)
    assert process.returncode == 130
    assert shown.rpartition(b"\x1b[?1049l")[2].split() == (
        b"\x1b[?25h\x1b[0m macllm: ended at once; nothing was saved yet".split()
    )
