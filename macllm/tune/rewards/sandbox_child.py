"""The process in which code of a model runs: takes rights away from itself, runs code and tests, reports what passed.

Run as a program, with nothing but the standard library. A task comes by standard input as JSON; a line
``token index`` goes out for every test that ran to its end. What the system does not allow to be taken away is left
as it is: a bound less is no reason not to run.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from typing import Any

_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT = 38, 1  # prctl(2)
_NEW_USER, _NEW_PROCESSES, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000  # unshare(2)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # landlock(7), on every architecture
# rights by the version that brought them: to write, remove and make; to link elsewhere; to truncate
_WRITES = {1: 0b1_1111_1111_0010, 2: 1 << 13, 3: 1 << 14}
_WRITE_AND_TRUNCATE = 1 << 1 | 1 << 14


def main() -> None:
    task: dict[str, Any] = json.load(sys.stdin)
    report = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    if sys.platform == "linux":
        _leave_the_others(ctypes.CDLL(None, use_errno=True))
        _write_only_in(task["folder"], ctypes.CDLL(None, use_errno=True))
    _bound(task)
    _run(task["code"], task["tests"], task["token"], report)
    os._exit(0)


def _leave_the_others(libc: Any) -> None:
    """No network and no process but one's own, where the system lets a user have that."""
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_PROCESSES) != 0:
        return
    child = os.fork()  # the first of its namespace: with it all others in there end
    if child:
        os.waitpid(child, 0)
        os._exit(0)
    libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def _write_only_in(folder: str, libc: Any) -> None:
    """Files are written, made and removed in ``folder`` alone; and no TCP, no signal to others (Landlock)."""
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    writes = sum(rights for since, rights in _WRITES.items() if since <= version)
    told = [writes, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]  # files, TCP, scopes
    attributes = struct.pack(f"={len(told)}Q", *told)
    rules = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return
    for path, rights in ((folder, writes), (os.devnull, writes & _WRITE_AND_TRUNCATE)):
        place = os.open(path, os.O_PATH)
        libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _bound(task: dict[str, Any]) -> None:
    """CPU time, memory, size of a file, open files, no core dump; no further process (root is exempt of the last)."""
    seconds = max(1, round(task["seconds"]))
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, task["memory"]),
        (resource.RLIMIT_FSIZE, task["file"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        with suppress(ValueError, OSError):  # macOS does not bound memory
            resource.setrlimit(what, (most, most))


def _run(code: str, tests: list[str], token: str, report: int) -> None:
    names: dict[str, Any] = {"__name__": "solution"}
    try:
        exec(compile(code, "solution.py", "exec"), names)
    except BaseException:
        return
    for index, test in enumerate(tests):
        try:
            exec(compile(test, f"test{index}.py", "exec"), names)
        except BaseException:
            continue
        os.write(report, f"{token} {index}\n".encode())


if __name__ == "__main__":
    main()
