"""Runs the kernels of a compiled program on buffers; the program's own format is described in ``runtime/main.cpp``."""

import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

TIMEOUT_SECONDS = 300  # of one program; a kernel that never ends is reported as that
_ORDERS = ("forward", "reverse", "random")
_SIDES = ("end", "start")
_TOLD = re.compile(r"^harness: (.*)$|runtime error: (.*)$|^(?:SUMMARY: )(.*)$", re.MULTILINE)

# No search for leaks (fibers are never unwound) and the first report ends the program.
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:handle_segv=0:handle_sigbus=0",
    "UBSAN_OPTIONS": "print_stacktrace=0",
    "TSAN_OPTIONS": "halt_on_error=1:handle_segv=0:report_signal_unsafe=0",
    "MSAN_OPTIONS": "handle_segv=0",
}


@dataclass(frozen=True)
class Buffer:
    """An input with its bytes, or an output of so many."""

    name: str
    nbytes: int
    contents: bytes | None = None

    @property
    def output(self) -> bool:
        return self.contents is None


@dataclass(frozen=True)
class Pass:
    """One run of a launch.

    ``order`` is that of the threads between the places where they meet; ``side`` the one at which each buffer touches
    its guard page; ``fill`` what outputs and threadgroup memory hold before they are written.
    """

    order: str = "forward"
    side: str = "end"
    fill: int = 0xFF  # a NaN in every float
    seed: int = 1


# Buffers are seen from both sides and threads in three orders; two fills tell what was never written.
THOROUGH = (Pass(), Pass("reverse", "start", 0x7F), Pass("random", "end", 0x7F, seed=2))
PASSES = {"fast": THOROUGH, "address": THOROUGH[:2], "thread": THOROUGH[:1], "memory": THOROUGH[:1]}


@dataclass(frozen=True)
class Call:
    """A launch of the kernel with this index in a program."""

    kernel: int
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True)
class Result:
    """Outputs of each pass, or what the kernel did wrong."""

    outputs: tuple[tuple[bytes, ...], ...] = ()
    fault: str = ""


def run_program(program: Path, calls: Sequence[Call], passes: Sequence[Pass]) -> list[Result]:
    """The results of ``calls``, in their order. A fault ends only its own call."""
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        launches, results = Path(folder) / "launches", Path(folder) / "results"
        with launches.open("wb") as file:
            file.writelines(_written(calls, passes))
        while len(found) < len(calls):
            fault = _run(program, launches, results, len(found))
            found += _read(results.read_bytes(), calls[len(found) :], passes)
            if len(found) < len(calls):
                found.append(Result(fault=fault or "the program ended early and said nothing"))
    return found


def _run(program: Path, launches: Path, results: Path, first: int) -> str:
    """Runs the program from a call on; what it says where it fails."""
    results.write_bytes(b"")
    symbolizer = shutil.which("llvm-symbolizer") or shutil.which("llvm-symbolizer-19")
    environment = {**os.environ, **_OPTIONS}
    if symbolizer:
        environment |= {f"{name}_SYMBOLIZER_PATH": symbolizer for name in ("ASAN", "MSAN", "TSAN", "UBSAN")}
    words = [str(program), str(launches), str(results), str(first)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it does not end within {TIMEOUT_SECONDS} seconds"
    return _told(done.stderr, done.returncode) if done.returncode else ""


def _told(text: str, code: int) -> str:
    """The sentences in what a program wrote on stderr."""
    found = [next(filter(None, match)) for match in _TOLD.findall(text) if any(match)]
    return "; ".join(found[:2]) if found else f"it ended with {code}: {' '.join(text.split())[:500]}"


def _written(calls: Sequence[Call], passes: Sequence[Pass]) -> Iterator[bytes]:
    yield _numbers(len(calls))
    for call in calls:
        yield _numbers(call.kernel, *call.grid, *call.threadgroup, len(call.buffers))
        for buffer in call.buffers:
            name = buffer.name.encode()
            yield _numbers(int(buffer.output), buffer.nbytes, len(name)) + name
            yield buffer.contents or b""
        yield _numbers(len(passes))
        for each in passes:
            yield _numbers(_ORDERS.index(each.order), each.seed, _SIDES.index(each.side), each.fill)


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def _read(contents: bytes, calls: Sequence[Call], passes: Sequence[Pass]) -> Iterator[Result]:
    """The results of the calls that came to their end."""
    place = 0
    for call in calls:
        sizes = [buffer.nbytes for buffer in call.buffers if buffer.output]
        if place + sum(sizes) * len(passes) > len(contents):
            return
        outputs: list[tuple[bytes, ...]] = []
        for _ in passes:
            ends = list(accumulate(sizes, initial=place))
            outputs.append(tuple(contents[start:end] for start, end in pairwise(ends)))
            place = ends[-1]
        yield Result(tuple(outputs))
