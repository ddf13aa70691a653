"""``macllm chat --replay`` and ``--record``: the contract, through the real command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from talk_terminal import Terminal

ROOT = Path(__file__).parent.parent.parent
RECORDINGS = ROOT / "tests" / "tui" / "recordings"
TALK = RECORDINGS / "conversation.jsonl"


def chat(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command, its input empty, and waits for its end."""
    given = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")
    }
    return subprocess.run(
        [sys.executable, "-m", "macllm", "chat", *map(str, words)],
        env={**given, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def refused(*words: object, **environment: str) -> str:
    """The one sentence that a call comes to."""
    done = chat(*words, **environment)
    assert done.returncode != 0 and done.stdout == "", done
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.removeprefix("macllm: ").strip()


def test_the_last_screen_is_printed_as_text(macllm_home: Path) -> None:
    done = chat("--replay", TALK)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 40 and max(map(len, lines)) <= 120
    assert "qwen3-8b" in lines[0] and "quit" in lines[-1]
    assert "28 % of it" in done.stdout and "71.3 tok/s · " in done.stdout
    assert "\x1b" not in done.stdout
    assert not macllm_home.exists(), "nothing of the user's is touched"


@pytest.mark.parametrize(
    ("name", "words"),
    [("crash", "f8 starts it again"), ("comparison", "better ▶"), ("training", "step 60 of 60")],
)
def test_whatever_is_recorded_is_shown_and_nothing_is_kept(name: str, words: str, macllm_home: Path) -> None:
    done = chat("--replay", RECORDINGS / f"{name}.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout
    assert not macllm_home.exists()


def test_a_replay_imports_no_model_library(tmp_path: Path, run_python) -> None:
    code = (
        "import sys\n"
        "from macllm.cli.main import main\n"
        f"assert main(['chat', '--replay', {str(TALK)!r}, '--screenshot', {str(tmp_path / 'a.svg')!r}]) == 0\n"
        "heavy = ('mlx', 'mlx_lm', 'numpy', 'transformers', 'torch')\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in heavy))"
    )
    assert run_python(code).strip() == "[]"


def test_the_size_is_the_screens(tmp_path: Path) -> None:
    for size in ("60x20", "200x50", "20x10"):
        columns, rows = map(int, size.split("x"))
        lines = chat("--replay", TALK, "--size", size).stdout.splitlines()
        assert len(lines) == rows and max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    "size", ["120", "120x", "x40", "0x0", "120X40", "-5x9", "19x10", "501x40", "80x301", "８０x24"]
)
def test_a_size_that_is_none_is_named(size: str) -> None:
    assert re.search(
        f"'{size}' is not a size of the form 120x40, from 20x10 to 500x300",
        refused("--replay", TALK, f"--size={size}"),
    )


def test_the_picture_is_an_svg_that_fetches_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    done = chat("--replay", TALK, "--screenshot", out, "--size", "100x30")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    svg = out.read_text()
    ElementTree.fromstring(svg)
    assert "font-face" not in svg and "url(http" not in svg and "href" not in svg
    assert str(tmp_path) not in svg and str(ROOT) not in svg
    assert "latent" in svg

    light = tmp_path / "light.svg"
    assert (
        chat("--replay", TALK, "--screenshot", light, "--size", "100x30", "--theme", "paper").returncode == 0
    )
    assert light.read_text() != svg and "#fdfcf9" in light.read_text()
    assert (
        chat("--replay", TALK, "--screenshot", light, "--size", "100x30").returncode == 0
    )  # there already: it is written again
    assert light.read_text() == svg


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "out.svg"
    assert (
        refused("--replay", TALK, "--screenshot", nowhere)
        == f"{nowhere}: cannot be written: No such file or directory; give another place"
    )
    assert "Is a directory" in refused("--replay", TALK, "--screenshot", tmp_path)


def test_a_damaged_recording_is_named_with_its_line(tmp_path: Path) -> None:
    lines = TALK.read_text().splitlines(keepends=True)
    damaged = tmp_path / "talk.jsonl"
    damaged.write_text("".join([*lines[:5], "{nonsense\n", *lines[5:]]))
    assert refused("--replay", damaged).startswith(f"{damaged}:6: not JSON")
    damaged.write_text(json.dumps({"macllm_recording": 99}) + "\n")
    assert f"{damaged}:1: format 99" in refused("--replay", damaged)
    damaged.write_text("")
    assert refused("--replay", damaged).startswith(f"{damaged}:1: there is nothing in it")
    assert "No such file" in refused("--replay", tmp_path / "none.jsonl")
    assert "Is a directory" in refused("--replay", tmp_path)
    damaged.write_bytes(b"\xff\xfe\x00")
    assert "is not text" in refused("--replay", damaged)


def test_a_recording_cut_off_in_a_reply_shows_what_there_is(tmp_path: Path) -> None:
    lines = TALK.read_text().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if '"request"' in line)
    cut = tmp_path / "talk.jsonl"
    cut.write_text("".join(lines[: last + 12]))
    done = chat("--replay", cut)
    assert done.returncode == 0
    assert "At 32k tokens, for a model" in done.stdout
    assert "the recording ends in the middle of this" in done.stdout
    cut.write_text("".join(lines[:3]))  # in the middle of the load
    assert "the recording ends in the middle" in chat("--replay", cut).stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["starter"], "MODEL"),
        (["--system", "Be short."], "--system"),
        (["--plain"], "--plain"),
        (["--dtype", "float32"], "--dtype"),
        (["--kv-bits", "8"], "--kv-bits"),
        (["--record", "new.jsonl"], "--record"),
        (["--temp", "0.5"], "temperature"),
        (["--max-tokens", "5"], "max_tokens"),
    ],
)
def test_what_a_recording_holds_cannot_be_given(words: list[str], named: str) -> None:
    sentence = refused("--replay", TALK, *words)
    assert sentence.startswith("--replay shows what was recorded; leave out") and named in sentence


def test_options_of_a_replay_need_one() -> None:
    assert refused("--size", "80x24") == "--size goes with --replay FILE.jsonl"
    assert refused("--screenshot", "a.svg") == "--screenshot goes with --replay FILE.jsonl"


def test_a_theme_that_is_not_there_is_named() -> None:
    assert "no theme 'pink' (there are graphite, paper" in refused("--replay", TALK, "--theme", "pink")


def test_without_colour_the_picture_has_none(tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    assert chat("--replay", TALK, "--screenshot", out, NO_COLOR="1").returncode == 0
    body = out.read_text().split("</style>")[0]
    greys = [
        found
        for found in re.findall(r"fill: #([0-9a-f]{6})", body)
        if len({found[:2], found[2:4], found[4:]}) > 1
    ]
    assert len(set(greys)) <= 1, "but for what the picture takes for the terminal's own"


def test_recording_needs_the_app_and_a_new_file(tmp_path: Path) -> None:
    assert (
        refused("--record", tmp_path / "new.jsonl")
        == "--record goes with the app, on a terminal and without --plain"
    )
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_recording_is_refused_before_the_app_opens(there: bool, tmp_path: Path, macllm_home: Path) -> None:
    file = tmp_path / "talk.jsonl" if there else tmp_path / "none" / "talk.jsonl"
    if there:
        file.write_text("precious")
    with Terminal("starter", "--record", str(file), home=macllm_home, folder=tmp_path) as terminal:
        why = (
            "is there already; give a new file" if there else "No such file or directory; give another place"
        )
        said = terminal.until(why)
        assert terminal.ended() == 2
    assert said.count("\n") <= 1 and "\x1b" not in said
    assert not there or file.read_text() == "precious"
