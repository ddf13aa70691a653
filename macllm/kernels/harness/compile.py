"""Clang, and what it made: programs of kernels in five builds, kept in a cache.

A program is compiled against a precompiled prelude and linked to a runtime; both are made once for a build.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from macllm import paths
from macllm.errors import InputError
from macllm.kernels.harness.program import INCLUDE, prelude

BUILDS = ("fast", "lint", "address", "thread", "memory")
_RUNTIME = Path(__file__).parent / "runtime"
_COMPILERS = ("clang++-19", "clang++-20", "clang++-21", "clang++-18", "clang++")
_INSTALL = "install clang 19 and its runtime libraries (Debian: apt-get install clang-19 libclang-rt-19-dev)"
_KEPT_BYTES = 1_000_000_000  # of the cache: all kernels in all builds take a quarter

# Metal's literals are floats, half and bfloat round after each operation, and nothing is contracted: a result is
# the same on every machine.
_LANGUAGE = (
    *("-std=c++17", "-x", "c++", f"-I{INCLUDE}", "-fno-strict-aliasing", "-ffp-contract=off"),
    *("-Xclang", "-cl-single-precision-constant"),
    *("-Xclang", "-ffloat16-excess-precision=none", "-Xclang", "-fbfloat16-excess-precision=none"),
)
_UNDEFINED = "-fno-sanitize=vptr,function,shift-base"  # Metal shifts negative numbers as it shifts others
_OF_BUILD: dict[str, tuple[str, ...]] = {
    "fast": ("-O1", "-w"),
    "lint": ("-Wno-everything", "-DHARNESS_LINT"),
    "address": (
        *("-O1", "-w", "-gline-tables-only", "-fno-omit-frame-pointer", "-DHARNESS_ADDRESS"),
        *("-fsanitize=address,undefined,float-cast-overflow", _UNDEFINED, "-fno-sanitize-recover=all"),
    ),
    "thread": ("-O1", "-w", "-gline-tables-only", "-DHARNESS_THREAD", "-fsanitize=thread"),
    "memory": ("-O1", "-w", "-gline-tables-only", "-DHARNESS_MEMORY", "-fsanitize=memory"),
}
# Metal converts nothing to bfloat that is not cast, and a kernel says where it rounds to half
_LINT = ("-fsyntax-only", "-Werror=implicit-float-conversion")


class CompileError(Exception):
    """Clang does not accept a kernel's text: what it says, first line first."""


def find_clang() -> str:
    """The compiler: ``MACLLM_CLANG``, else the first known one on the path. Raises InputError."""
    if platform.system() != "Linux":
        raise InputError(
            "kernels are checked on Linux only; `macllm doctor` tries them on this machine's GPU"
        )
    given = os.environ.get("MACLLM_CLANG")
    for name in [given] if given else _COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    if given:
        raise InputError(f"MACLLM_CLANG={given} is no program; {_INSTALL}, or unset it")
    raise InputError(f"kernels are checked with clang, which is not installed; {_INSTALL}")


def lint(source: str) -> None:
    """Checks a program's text with address spaces as Metal has them. Raises CompileError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cpp"
        file.write_text(source, encoding="utf-8")
        _clang([*_flags("lint"), *_LINT, *_precompiled("lint"), str(file)])


def executable(source: str, build: str) -> Path:
    """The program of a text in one of the builds that run. Raises CompileError, InputError."""
    return _made(source, build, ".program", [*_flags(build), *_precompiled(build)], _linked(build))


def _precompiled(build: str) -> list[str]:
    flags = ["c++-header" if flag == "c++" else flag for flag in _flags(build)]
    # without times: a text that another process wrote again is the same one
    made = _made(prelude(), build, ".pch", [*flags, "-Xclang", "-fno-pch-timestamp"])
    return ["-include-pch", str(made)]


def _linked(build: str) -> list[str]:
    """The threads' scheduler, compiled without instrumentation: only kernels are watched."""
    define = [flag for flag in _OF_BUILD[build] if flag.startswith("-D")]
    flags = ["-std=c++17", "-x", "c++", "-O2", f"-I{INCLUDE}", f"-I{_RUNTIME}", *define, "-r", "-nostdlib"]
    source = "".join(f'#include "{file.name}"\n' for file in sorted(_RUNTIME.glob("*.cpp")))
    runtime = _made(source, build, ".o", flags)
    return ["-x", "none", str(runtime), "--rtlib=compiler-rt", "-lgcc_s", "-lm", "-lstdc++"]


def _flags(build: str) -> list[str]:
    return [*_LANGUAGE, *_OF_BUILD[build]]


def _made(source: str, build: str, suffix: str, flags: Sequence[str], after: Sequence[str] = ()) -> Path:
    """What clang makes of ``source``: from the cache, or made now and put there whole."""
    key = "\0".join([_inputs(), source, *flags, *after])
    place = cache_dir() / f"{build}-{hashlib.sha256(key.encode()).hexdigest()[:24]}{suffix}"
    text = place.with_suffix(".cpp")
    if place.exists() and text.exists():
        for file in (place, text):
            os.utime(file)  # in use: kept for longer
        return place
    _make_room(place.parent)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = Path(folder) / "made"
        made.write_text(source, encoding="utf-8")
        made.replace(text)  # stays: a precompiled header is read together with its text
        _clang([*flags, str(text), *after, "-o", str(made)])
        made.replace(place)  # another process may have made the same meanwhile
    return place


def cache_dir() -> Path:
    """Where programs are kept: a folder of this user's."""
    return paths.cache_dir() / "kernels"


def _make_room(folder: Path) -> None:
    """Makes the cache's folder, and removes what was used longest ago where there is too much of it."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process makes room, too
            if file.is_file():
                found.append((file.stat().st_mtime, file.stat().st_size, file))
    held = 0
    for _, size, file in sorted(found, reverse=True):
        held += size
        if held > _KEPT_BYTES:
            file.unlink(missing_ok=True)


def _clang(words: Sequence[str]) -> None:
    done = subprocess.run([find_clang(), *words], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if "libclang_rt" in done.stderr:
        raise InputError(f"clang has not its runtime libraries; {_INSTALL}")
    raise CompileError(done.stderr.strip())


@cache
def _inputs() -> str:
    """What a result depends on besides its text: the compiler, and the files that it includes."""
    compiler = subprocess.run([find_clang(), "--version"], capture_output=True, text=True, check=True).stdout
    found = [compiler, version("mlx")]
    for file in sorted([*_RUNTIME.iterdir(), *INCLUDE.rglob("*.h")]):
        found += [str(file), file.read_text(encoding="utf-8")]
    return "\0".join(found)
