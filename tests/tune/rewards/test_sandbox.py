"""Code of a model runs apart: it earns what it does, and reaches neither the tests' verdict nor the machine."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from macllm.tune.rewards.code import CodeTests, code_of
from macllm.tune.rewards.sandbox import Bounds, Sandbox, command

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
SANDBOX = Sandbox(Bounds(seconds=0.4))
PASSES = "assert True"


def test_the_share_of_tests_that_pass() -> None:
    reward = CodeTests()
    row = {
        "tests": ["assert f(1) == 2", "assert f(1) == 3", "raise SystemExit", "import math\nassert f(0) == 1"]
    }
    answer = "First\n```python\ndef f(x): return x\n```\nor better:\n```python\ndef f(x):\n    return x + 1\n```\n."
    assert reward.missing(row) is None
    assert reward("", answer, row) == 0.5
    assert reward("", "def f(x): return 3", {"tests": "assert f(1) == 3"}) == 1
    assert code_of("<think>```python\nno\n```</think>yes = 1") == "yes = 1"
    assert code_of("```py\nwithout_end = 1") == "without_end = 1"


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "raise SystemExit(0)",
        "def f(: ",
        "import builtins; builtins.exec = lambda *_: None; raise ValueError",
        "import os; [os.write(fd, b'0 0\\n') for fd in range(3, 20)]",
    ],
)
def test_what_ends_or_tells_early_earns_nothing(code: str) -> None:
    test = "assert False" if "write" in code else PASSES
    assert SANDBOX.passed(f"try:\n    pass\nfinally:\n    pass\n{code}", [test]) == 0


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: print('a' * 9999)"])
def test_what_does_not_end_is_ended(code: str) -> None:
    start = time.monotonic()
    assert SANDBOX.passed(code, [PASSES]) == 0
    assert time.monotonic() - start < 20


def test_tests_before_one_without_end_count() -> None:
    assert SANDBOX.passed("", [PASSES, "while True: pass"]) == 1


def test_every_run_has_an_empty_folder_of_its_own() -> None:
    assert Sandbox().passed("import os", ["open('a', 'w').write('b')", "assert os.listdir() == ['a']"]) == 2
    assert (
        Sandbox().passed("", ["import os; assert not os.listdir() and os.environ['HOME'] == os.getcwd()"])
        == 1
    )


def test_it_gets_no_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert SANDBOX.passed("import os", ["assert 'HF_TOKEN' not in os.environ"]) == 1


@LINUX
def test_it_changes_no_file_of_the_users(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    tests = [
        f"open({str(kept)!r}, 'w')",
        f"import os; os.remove({str(kept)!r})",
        f"open({str(tmp_path / 'new')!r}, 'w')",
    ]
    assert SANDBOX.passed("", tests) == 0
    assert kept.read_text() == "mine" and list(tmp_path.iterdir()) == [kept]


@LINUX
def test_it_reaches_no_network_and_no_process_of_the_users() -> None:
    neighbour = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        tests = [
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)",
            f"import os; os.kill({neighbour.pid}, 9)",
        ]
        assert SANDBOX.passed("", tests) == 0
    assert neighbour.poll() is None
    neighbour.communicate(b"\n")
    assert neighbour.returncode == 0


@LINUX
@pytest.mark.parametrize("code", ["a = bytearray(1 << 31)", "open('a', 'wb').write(bytes(1 << 25))"])
def test_memory_and_files_are_bounded(code: str) -> None:
    assert SANDBOX.passed(code, [PASSES]) == 0


@LINUX
def test_processes_it_starts_end_with_it() -> None:
    mark = f"macllm-left-{os.getpid()}"
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {mark!r}])"
    SANDBOX.passed(
        f"try:\n    {code.replace(chr(10), chr(10) + '    ')}\nexcept OSError:\n    pass", [PASSES]
    )
    time.sleep(0.2)
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert not any(mark.encode() in line for line in lines)


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_on_macos_it_runs_in_the_systems_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    first, option, profile, python, *_ = command("/private/var/x", "darwin")
    assert (first, option, python) == ("sandbox-exec", "-p", sys.executable)
    assert "(deny network*)" in profile and '(subpath "/private/var/x")' in profile
    assert command("/tmp/x", "linux")[0] == sys.executable
