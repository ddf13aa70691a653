"""What the engine said last, kept for whoever shows it: the panel and the status line. Nothing is computed here."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from macllm.engine.death import DIED
from macllm.engine.events import Done, Failed, Loading, Machine, Prefill, Ready, Stats, Token
from macllm.engine.metrics import Metrics

Phase: TypeAlias = Literal["nothing", "loading", "idle", "reading", "writing", "stopped", "failed"]

PHASES: dict[Phase, str] = {  # in words; the figures of an idle engine speak for themselves
    "nothing": "",
    "loading": "loading",
    "idle": "",
    "reading": "reading",
    "writing": "writing",
    "stopped": "stopped",
    "failed": "failed",
}
STEPS = 256  # more than the widest sparkline shows


@dataclass
class Readings:
    """The state of the engine as its events tell it."""

    phase: Phase = "nothing"
    machine: Machine | None = None
    loading: Loading | None = None
    ready: Ready | None = None
    prefill: Prefill | None = None
    metrics: Metrics | None = None  # of this reply, or of the last one
    steps_ms: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS))

    def take(self, event: object) -> bool:
        """Notes an event. True where it ends something, and so should be seen at once."""
        match event:
            case Machine():
                self.machine, self.phase = event, "nothing"
                self.ready = self.loading = self.prefill = self.metrics = None  # a new process holds no model
                self.steps_ms.clear()
            case Loading():
                if self.phase != "loading":
                    self._begin("loading")
                self.loading, self.ready = event, None
            case Ready():
                self.phase, self.ready, self.loading = "idle", event, None
            case Prefill():
                if self.phase != "reading":
                    self._begin("reading")
                self.prefill = event
            case Token() if self.phase != "writing":
                self.phase = "writing"
            case Stats():
                self.metrics = event.metrics
                self.steps_ms.extend(event.steps_ms)
                return False
            case Done():
                self._done(event)
            case Failed():
                self._failed(event)
            case _:
                return False
        return isinstance(event, Machine | Ready | Done | Failed)

    @property
    def model(self) -> str:
        """The model in memory, or on its way there."""
        if self.loading is not None:
            return self.loading.model
        return self.ready.model if self.ready is not None else ""

    def rates(self, width: int) -> Iterable[float]:
        """Heights of the last steps: a step twice as fast is twice as high."""
        return [1e3 / ms if ms > 0 else 0.0 for ms in list(self.steps_ms)[-width:]]

    def _begin(self, phase: Phase) -> None:
        """The first event of a request leaves the last one's figures behind."""
        self.phase, self.metrics, self.prefill = phase, None, None
        self.steps_ms.clear()

    def _done(self, event: Done) -> None:
        if self.loading is not None:  # it was the load that was stopped
            self.loading, self.phase = None, "nothing"
            return
        self.metrics = event.metrics
        self.phase = "stopped" if event.reason == "cancelled" else "idle"

    def _failed(self, event: Failed) -> None:
        self.loading = None
        died = event.kind == DIED
        if died:
            self.ready = None
        self.phase = "failed" if died or self.ready is not None else "nothing"
