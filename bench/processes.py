"""Times whole processes: command start, imports, first token."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.worker import ROOT, WorkerError, environment_with

_TIMEOUT_S = 180


def seconds(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Wall time of a process from start to exit. Raises WorkerError where it fails."""
    start = time.perf_counter()
    _run(command, environment)
    return time.perf_counter() - start


def import_seconds(imports: str) -> float:
    """Time of an import statement in a fresh interpreter, the interpreter's own start left out."""
    code = f"import time\nstart = time.perf_counter()\n{imports}\nprint(time.perf_counter() - start)"
    return float(_run([sys.executable, "-c", code], None))


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a statement loads."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(_run([sys.executable, "-c", code], None).split())


def macllm_command() -> list[str]:
    """The installed command, or the module where macllm runs from its sources."""
    script = Path(sys.executable).with_name("macllm")
    return [str(script)] if script.exists() else [sys.executable, "-m", "macllm"]


def _run(command: Sequence[str], environment: Mapping[str, str] | None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment_with(environment or {}),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkerError(f"more than {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise WorkerError(f"exit code {done.returncode}: {last[:80]}")
    return done.stdout
