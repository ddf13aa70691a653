"""Trials in a process of their own, ``python -m macllm.kernels.trial_process ORDER``: one JSON line a kernel.

A kernel may hang, or end its process in a way that no ``except`` sees; here it takes nothing with it, and is found
out by it. And MLX may be asked by one thread at a time, while a model is read by another process's.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from macllm.kernels.kernel import Kernel
from macllm.kernels.permission import runner
from macllm.kernels.registry import KERNELS
from macllm.kernels.trial import LONGEST_REASON, SHORT_S, short_trial, trials
from macllm.kernels.verdicts import Verdict, dtype_name, verdict_from_json
from macllm.kernels.workload import Workload, from_json
from macllm.paths import child_environment

# -P: a file in the user's folder must not be taken for a module of the same name
COMMAND = (sys.executable, "-P", "-m", "macllm.kernels.trial_process")

LONG_PATIENCE_S = 300.0  # for one kernel in full
SHORT_PATIENCE_S = SHORT_S + 1.0
START_PATIENCE_S = 30.0  # for the process itself: where it does not come, no kernel is to blame
SHORT_START_PATIENCE_S = 5.0
_BEGUN = "begun"
_LONGEST_STDERR = 4000  # bytes that are looked at


@dataclass(frozen=True)
class Order:
    """What is to be tried."""

    kernels: tuple[str, ...]
    work: Workload
    short: bool = False

    def as_text(self) -> str:
        return json.dumps({"kernels": self.kernels, "work": self.work.as_json(), "short": self.short})

    @staticmethod
    def of_text(text: str) -> "Order":
        raw = json.loads(text)
        return Order(tuple(raw["kernels"]), from_json(raw["work"]), raw["short"])


class TrialProcess:
    """Begins at once; :meth:`found` may be asked later. What it finds of no kernel is untried."""

    def __init__(self, order: Order, command: Sequence[str] | None = None) -> None:
        self._order, self._command = order, command or COMMAND
        self._patience_s = SHORT_PATIENCE_S if order.short else LONG_PATIENCE_S
        self._start(order)

    def found(self) -> Iterator[tuple[Kernel, tuple[Verdict, ...]]]:
        """Each kernel's verdicts as they come. One that ends the process has failed; another then tries the rest."""
        left = list(self._order.kernels)
        try:
            begun = yield from self._told(left)
        finally:
            trouble = self._end()
        if trouble and begun and left:  # before that, no kernel is to blame
            name = left.pop(0)
            kind = dtype_name(self._order.work.dtype)
            yield KERNELS[name], (Verdict(name, kind, "failed", trouble),)
            if left and not self._order.short:
                yield from TrialProcess(replace(self._order, kernels=tuple(left)), self._command).found()

    def _told(self, left: list[str]) -> Generator[tuple[Kernel, tuple[Verdict, ...]], None, bool]:
        """What is found until its end, taking names from ``left``; whether it ever began."""
        begun = False
        patience_s = SHORT_START_PATIENCE_S if self._order.short else START_PATIENCE_S
        while (line := self._next(patience_s)) is not None:
            if line == _BEGUN:
                begun, patience_s = True, self._patience_s
                continue
            left.remove(line["kernel"])
            yield KERNELS[line["kernel"]], tuple(map(verdict_from_json, line["verdicts"]))
        return begun

    def stop(self) -> None:
        """Ends it; what it has not told is lost."""
        self._process.kill()
        self._process.wait()

    def _start(self, order: Order) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _end
        self._process = subprocess.Popen(
            [*self._command, order.as_text()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=child_environment(os.environ),
            start_new_session=True,  # Ctrl-C in the terminal ends it by this one's end
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="macllm-trial", daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _next(self, patience_s: float) -> Any:
        """The next line's content; None at the end, or where it does not come in time."""
        try:
            line = self._lines.get(timeout=patience_s)
        except queue.Empty:
            return None
        return json.loads(line) if line is not None else None

    def _end(self) -> str:
        """Why it did not end well; "" where it did."""
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.stop()
            code = None
        with self._errors as errors:
            errors.seek(max(errors.seek(0, 2) - _LONGEST_STDERR, 0))
            lines = errors.read().decode(errors="replace").split("\n")
        if code == 0:
            return ""
        if code is None:
            return f"it did not end within {self._patience_s:g} s"
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        what = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"it ended its process ({what}){f': {said}' if said else ''}"[:LONGEST_REASON]


def main(order: Order) -> None:
    """Tries and tells."""
    run = runner()
    if run is None:
        return
    kernels = [KERNELS[name] for name in order.kernels]
    _tell(_BEGUN)
    for kernel, found in (short_trial if order.short else trials)(kernels, run, order.work):
        _tell({"kernel": kernel.name, "verdicts": [each.as_json() for each in found]})


def _tell(content: Any) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main(Order.of_text(sys.argv[1]))
