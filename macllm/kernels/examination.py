"""All kernels tried in full on this machine, the verdicts kept, and a report that tells nothing of its owner."""

import getpass
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from macllm import backend
from macllm.kernels import permission, registry
from macllm.kernels.kernel import Kernel
from macllm.kernels.trial_process import Order, TrialProcess
from macllm.kernels.verdicts import Verdict, Verdicts, here
from macllm.kernels.workload import Workload


def examine(work: Workload) -> Iterator[tuple[Kernel, tuple[Verdict, ...]]]:
    """Tries every kernel on its cases and at the shapes of ``work``, and keeps what is found, as it is found.

    Raises OSError where the data folder cannot be written.
    """
    known = Verdicts.load()
    for kernel, verdicts in TrialProcess(Order(tuple(registry.KERNELS), work)).found():
        known.record(kernel, verdicts)
        known.save()
        permission.changed()
        yield kernel, verdicts


def row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON data, in the words of the table."""
    saved = verdict.as_json()
    names = ("kernel", "dtype", "shape", "rows", "error", "kernel_s", "rival_s")
    judged = {"ratio": round(verdict.ratio, 3), "verdict": verdict.status, "reason": verdict.reason}
    return {**{name: saved[name] for name in names}, **judged}


def shareable(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A report to give to others: the machine, the versions, the verdicts; no names of people, hosts or folders."""
    machine, current = here(), backend.current()
    return {
        "chip": machine.chip,
        "system": machine.system,
        "memory_bytes": current.memory_bytes,
        "backend": current.name,
        "dtype": current.dtype,
        "mlx": machine.mlx,
        "macllm": machine.macllm,
        "kernels": [{**row(each), "reason": without_names(each.reason, _private())} for each in verdicts],
    }


def without_names(text: str, private: Mapping[str, str]) -> str:
    """``text`` with each key of ``private`` replaced, longest first, where it stands as a word, and no folders."""
    for name in sorted(filter(None, private), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", private[name], text)
    return re.sub(r"(?:/(?:Users|home|private|var|tmp|Volumes)/|~/)\S+/", ".../", text)


def _private() -> dict[str, str]:
    host = socket.gethostname()
    return {
        str(Path.home()): "~",
        getpass.getuser(): "USER",
        host: "HOST",
        host.partition(".")[0]: "HOST",
    }
