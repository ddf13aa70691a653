"""What trials of kernels found on this machine, kept in the user's data folder.

A verdict holds for one chip, system, MLX, macllm and kernel text; where any of them has changed, the kernel is
untried again. One JSON file a chip, written beside and renamed; a damaged one is as good as none.
"""

import contextlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import mlx.core as mx

from macllm import __version__, backend, paths
from macllm.kernels.kernel import Kernel

# right: its results are, but nothing was timed
Status: TypeAlias = Literal["faster", "slower", "right", "wrong", "failed", "untried"]

FASTER = 1.02  # times as fast as its rival: less is within what timings vary by
_ROWS_WEIGH = 8.0  # how many times as much as a matrix's size, where a shape near another is looked for


@dataclass(frozen=True)
class Machine:
    """What a verdict depends on besides the kernel's text."""

    chip: str  # "Apple M3 Max"
    system: str  # "macOS 15.1"
    mlx: str
    macllm: str


@dataclass(frozen=True)
class Verdict:
    """What a trial found of one kernel in one type, and, where it was timed, at one shape.

    ``wrong`` and ``failed`` hold for all shapes of the type; ``reason`` says what happened.
    """

    kernel: str
    dtype: str  # "float16"
    status: Status
    reason: str = ""
    error: float = 0.0  # the largest found, relative to the largest magnitude
    shape: tuple[int, ...] = ()
    rows: int = 0
    kernel_s: float = 0.0
    rival_s: float = 0.0  # of MLX's own kernel, or else of the twin

    @property
    def ratio(self) -> float:
        """How many times as fast as its rival; 0 where it was not timed."""
        return self.rival_s / self.kernel_s if self.kernel_s > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """As JSON data, which has no infinite numbers."""
        return {**asdict(self), "error": self.error if math.isfinite(self.error) else None}

    @property
    def good(self) -> bool:
        """Whether it gives what it must, so far as was tried."""
        return self.status in ("faster", "slower", "right")


class Verdicts:
    """All that is known of this machine's kernels."""

    def __init__(self, machine: Machine, file: Path) -> None:
        """Knows nothing yet, see :meth:`load`."""
        self.machine = machine
        self._file = file
        self._found: dict[tuple[str, str], tuple[Verdict, ...]] = {}  # by kernel and digest

    @classmethod
    def load(cls, machine: Machine | None = None) -> "Verdicts":
        """What was saved for ``machine`` (this one); nothing of a file that cannot be read or is another's."""
        known = cls(machine or here(), _file(machine or here()))
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            saved = json.loads(known._file.read_text(encoding="utf-8"))
            if saved["machine"] == asdict(known.machine):
                found = {
                    (name, entry["digest"]): tuple(map(verdict_from_json, entry["verdicts"]))
                    for name, entry in saved["kernels"].items()
                }
                known._found = found  # all of it or nothing
        return known

    def all_of(self, kernel: Kernel, dtype: mx.Dtype | None = None) -> tuple[Verdict, ...]:
        """Every verdict on a kernel, of one type or of all; empty where it is untried."""
        found = self._found.get((kernel.name, kernel.body.digest), ())
        return tuple(each for each in found if dtype is None or each.dtype == dtype_name(dtype))

    def of(self, kernel: Kernel, dtype: mx.Dtype, rows: int = 1, shape: Sequence[int] = ()) -> Verdict:
        """The verdict for a call: over all shapes that were timed with the nearest number of rows.

        With ``shape``, the one of the shape nearest to it. Its seconds are sums over the shapes.
        """
        found = self.all_of(kernel, dtype)
        bad = next((each for each in found if not each.good), None)
        if bad is not None:
            return bad
        timed = [each for each in found if each.kernel_s > 0]
        if not timed:
            return found[0] if found else Verdict(kernel.name, dtype_name(dtype), "untried")
        nearest = min(_distance(each, rows, shape) for each in timed)
        return _sum([each for each in timed if _distance(each, rows, shape) == nearest])

    def record(self, kernel: Kernel, verdicts: Iterable[Verdict]) -> None:
        """Puts ``verdicts`` in place of what was known of the kernel in their types."""
        new = tuple(verdicts)
        replaced = {each.dtype for each in new}
        kept = tuple(each for each in self.all_of(kernel) if each.dtype not in replaced)
        for key in [key for key in self._found if key[0] == kernel.name]:
            del self._found[key]  # of another text, too
        self._found[kernel.name, kernel.body.digest] = kept + new

    def save(self) -> None:
        """Writes the file. Raises OSError where the data folder cannot be written."""
        entries = {
            name: {"digest": digest, "verdicts": [each.as_json() for each in found]}
            for (name, digest), found in sorted(self._found.items())
        }
        text = json.dumps({"machine": asdict(self.machine), "kernels": entries}, indent=1, allow_nan=False)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self._file)

    def __iter__(self) -> Iterator[Verdict]:
        return (verdict for found in self._found.values() for verdict in found)


def here() -> Machine:
    """This machine."""
    macos = platform.mac_ver()[0]
    system = f"macOS {macos}" if macos else f"{platform.system()} {platform.release()}"
    return Machine(backend.current().device, system, version("mlx"), __version__)


def dtype_name(dtype: mx.Dtype) -> str:
    """ "float16" of ``mlx.core.float16``."""
    return str(dtype).rpartition(".")[2]


def _file(machine: Machine) -> Path:
    chip = re.sub(r"[^a-z0-9]+", "-", machine.chip.lower()).strip("-") or "unknown"
    return paths.data_dir() / "kernels" / f"{chip}.json"


def verdict_from_json(saved: dict[str, Any]) -> Verdict:
    """What :meth:`Verdict.as_json` made. Raises TypeError, KeyError or ValueError where it is none."""
    if set(saved) != {field.name for field in fields(Verdict)} or saved["status"] not in get_args(Status):
        raise ValueError(saved)
    numbers = {name: float(saved[name]) for name in ("kernel_s", "rival_s")}
    error = math.inf if saved["error"] is None else float(saved["error"])
    shape = tuple(map(int, saved["shape"]))
    return Verdict(**{**saved, **numbers, "error": error, "shape": shape, "rows": int(saved["rows"])})


def _distance(verdict: Verdict, rows: int, shape: Sequence[int]) -> float:
    """How far a call is from what was timed, in octaves."""
    far = _ROWS_WEIGH * _octaves(verdict.rows, rows)
    if len(shape) == len(verdict.shape):
        far += sum(map(_octaves, verdict.shape, shape))
    return far


def _octaves(one: int, other: int) -> float:
    return abs(math.log2(max(one, 1) / max(other, 1)))


def _sum(timed: Sequence[Verdict]) -> Verdict:
    """One verdict over several shapes: a model does them all, one after the other."""
    if len(timed) == 1:
        return timed[0]
    first = timed[0]
    whole = Verdict(
        first.kernel,
        first.dtype,
        "faster",
        "",
        max(each.error for each in timed),
        (),
        first.rows,
        sum(each.kernel_s for each in timed),
        sum(each.rival_s for each in timed),
    )
    return whole if whole.ratio >= FASTER else replace(whole, status="slower")
