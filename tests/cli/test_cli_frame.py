"""The frame of the command line: what starts without loading anything, and how errors reach the user."""

import argparse
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import macllm
from macllm.cli import main as frame
from macllm.cli.main import COMMANDS, main
from macllm.errors import CheckpointError, DownloadError

ROOT = Path(macllm.__file__).parent.parent


@pytest.fixture(autouse=True)
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MACLLM_DEBUG", raising=False)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Puts a command in the place of ``macllm generate`` whose ``run`` is the given function."""

    def install(run: Callable[[argparse.Namespace], int]) -> None:
        module = ModuleType("macllm.cli.generate")

        def configure(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("model")
            parser.add_argument("--max-tokens", type=int)

        module.HELP, module.configure, module.run = "help", configure, run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "macllm.cli.generate", module)

    return install


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def one_sentence(text: str) -> str:
    """The text of stderr, checked to be one line for the user."""
    assert text.startswith("macllm: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_help_names_every_command_and_loads_none(run_python: Callable[..., str]) -> None:
    code = "import sys; from macllm.cli.main import main; main(['--help']); print(*sys.modules, sep='|')"
    text, modules = run_python(code).rsplit("\n", 2)[:2]
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", text, re.MULTILINE)
    loaded = set(modules.split("|"))
    assert not {name for name in loaded if name.startswith("macllm.cli.")} - {"macllm.cli.main"}
    assert not loaded & {
        "mlx",
        "mlx.core",
        "numpy",
        "rich",
        "huggingface_hub",
        "tokenizers",
        "jinja2",
        "textual",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_keeps_the_contract(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: macllm {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"macllm {macllm.__version__}\n"


def test_alone_it_is_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ModuleType("macllm.cli.chat")
    chat.HELP, chat.configure, chat.run = "", lambda parser: None, lambda args: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "macllm.cli.chat", chat)
    assert main([]) == 7


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["genrate", "x"], "no command genrate (did you mean generate?)"),
        (["zzz"], "no command zzz; see `macllm --help`"),
        (["--versoin"], "no option --versoin (did you mean --version?)"),
        (["generate", "x", "--max-token", "3"], "no option --max-token (did you mean --max-tokens?)"),
        (["generate", "--max-tokes=3"], "no option --max-tokes (did you mean --max-tokens?)"),
        (["generate"], "the following arguments are required: model; see `macllm generate --help`"),
        (["generate", "x", "y"], "'y' is one argument too many"),
        (["generate", "x", "--max-tokens", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    fake: Callable[..., None], capsys: pytest.CaptureFixture[str], argv: list[str], expected: str
) -> None:
    fake(lambda args: 0)
    assert main(argv) == 2
    assert expected in one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (CheckpointError("model.gguf: truncated"), 2, "macllm: model.gguf: truncated\n"),
        (DownloadError("offline; run it again"), 1, "macllm: offline; run it again\n"),
        (KeyboardInterrupt(), 130, "macllm: interrupted\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/models/a"),
            1,
            "macllm: /models/a: No space left on device; free some disk space and run it again\n",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/models/a"),
            1,
            "macllm: /models/a: Permission denied; change the permissions, or choose another place\n",
        ),
        (
            ZeroDivisionError("a\nb"),
            1,
            "macllm: unexpected error: ZeroDivisionError: a b; "
            "run again with --debug for the traceback and report it\n",
        ),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    fake: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    fake(raising(error))
    assert main(["generate", "x"]) == code
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize(
    ("argv", "variable"),
    [(["generate", "x", "--debug"], ""), (["--debug", "generate", "x"], ""), (["generate", "x"], "1")],
)
def test_debug_shows_the_traceback_before_the_sentence(
    fake: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    variable: str,
) -> None:
    fake(raising(CheckpointError("broken")))
    monkeypatch.setenv("MACLLM_DEBUG", variable)
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("\nmacllm: broken\n")


def test_after_two_dashes_debug_is_a_word(fake: Callable[..., None]) -> None:
    seen: list[str] = []
    fake(lambda args: seen.append(args.model) or 0)  # type: ignore[func-returns-value]
    assert main(["generate", "--", "--debug"]) == 0
    assert seen == ["--debug"]


@pytest.mark.parametrize("argv", [["--help"], ["doctor", "--help"], ["doctor"]])
def test_a_closed_pipe_is_quiet(argv: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "macllm", *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # unbuffered, argparse itself swallows the error
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()  # before the interpreter is up
    assert process.wait() == frame.EXIT_BROKEN_PIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_terminal_that_cannot_show_a_character_gets_its_number() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "macllm", "naïve🦙"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert rb"na\xefve\U0001f999" in done.stderr
