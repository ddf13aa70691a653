"""A bug to plant into a kernel, as data: what is replaced by what, and which build must report it as what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One bug. It is planted once, where ``text`` first occurs after ``after``."""

    kernel: str
    bug: str
    text: str
    replacement: str
    build: str
    report: str  # a pattern of what must be reported
    dtype: str = "float32"
    shape: tuple[int, ...] | None = None  # of the cases to run; None: the smallest of each label
    label: str | None = None  # of the cases to run
    after: str = ""


BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
WRONG = "relative error"
RACE = "data race"
OUTSIDE = "out of bounds"
UNWRITTEN = "never written"
UNINITIALISED = "uninitialized|not written|uninitialised"
OVERFLOW = "out of bounds|buffer-overflow"
