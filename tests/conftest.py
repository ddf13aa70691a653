"""Shared by all tests: a home of their own, the starter model, and no silent skips in CI."""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# examples share the machine with other tests: their time says nothing about the code
settings.register_profile("macllm", settings(), deadline=None)
settings.load_profile("macllm")

ROOT = Path(__file__).parent.parent

# The only reasons for which a test may skip itself where CI is set: hardware or a system that is not there.
ALLOWED_SKIPS = ("needs Metal", "needs macOS", "needs CUDA", "needs Linux")

_USERS_HOME = os.environ.get("MACLLM_HOME")


@pytest.fixture(autouse=True)
def macllm_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own: nothing is read from or written to the user's."""
    home = tmp_path / "macllm-home"
    monkeypatch.setenv("MACLLM_HOME", str(home))
    # compiled kernels are the same for every test, and take long to make
    monkeypatch.setenv("MACLLM_CACHE", str(Path(tempfile.gettempdir()) / f"macllm-tests-{os.getuid()}"))
    return home


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """The starter model's GGUF: ``MACLLM_STARTER_GGUF``, else pulled once into the user's models folder."""
    given = os.environ.get("MACLLM_STARTER_GGUF")
    if given:
        return Path(given)
    from macllm.hub.pull import find

    lock = Path(tempfile.gettempdir()) / f"macllm-starter-{os.getuid()}.lock"
    with pytest.MonkeyPatch.context() as patch, lock.open("w") as file:
        if _USERS_HOME is None:
            patch.delenv("MACLLM_HOME", raising=False)
        else:
            patch.setenv("MACLLM_HOME", _USERS_HOME)
        fcntl.flock(file, fcntl.LOCK_EX)  # two workers of one run must not download it twice
        place = find("starter").path
    return place if place.is_file() else next(place.rglob("*.gguf"))


def hiding_skips(reports: Sequence[pytest.TestReport]) -> list[str]:
    """The skips that hide something: ``test: reason`` of each whose reason is not allowed."""
    found = []
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(ALLOWED_SKIPS):
            found.append(f"{report.nodeid}: {reason}")
    return found


def _hidden(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI", "") in ("", "0", "false"):
        return []  # an xdist worker, or a person's machine
    return hiding_skips(reporter.stats.get("skipped", []))


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """A skip that hides fails the run in CI."""
    if _hidden(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names the skips that failed the run."""
    hidden = _hidden(config)
    if hidden:
        terminalreporter.section("skips that are not allowed in CI", red=True)
        for line in hidden:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Gives what a fresh interpreter prints for a piece of code, with macllm importable."""

    def run(code: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
