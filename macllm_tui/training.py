"""A fine-tuning run as the app keeps it: follows the events and holds the history, whatever screen is shown."""

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from macllm.engine.events import Done, Failed, Loading, Notice
from macllm.engine.protocol import Train
from macllm.engine.training_events import Planned, Preparing, Sample, Saved, Trained, TrainStep, Validation
from macllm.errors import MacllmError
from macllm.plotting.series import Series

if TYPE_CHECKING:
    from macllm.engine.client import Engine, Stream

State: TypeAlias = Literal["starting", "running", "stopping", "finished", "stopped", "failed"]
SPEEDS = 512  # tokens/s of the last steps: as many as a sparkline has columns
LONGEST_STOP_S = 120.0
SAMPLES, SAVES = 500, 1000  # the newest kept; texts of samples may be long

_UNSAID = Failed("The engine ended the run without saying why; resume it from the last save.", 1, "Unsaid")


class TrainingRun:
    """One run. ``revision`` grows with every event: a screen that has drawn it has nothing to do."""

    def __init__(self, engine: "Engine", request: Train) -> None:
        self.request = request
        self.state: State = "starting"
        self.revision = 0
        self.loading: Loading | None = None
        self.preparing: Preparing | None = None
        self.planned: Planned | None = None
        self.step: TrainStep | None = None
        self.validation: Validation | None = None
        self.bests: list[Validation] = []  # each better than the one before
        self.saved: deque[Saved] = deque(maxlen=SAVES)
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.sampled = 0  # samples ever, also those no longer kept
        self.notes: list[
            str
        ] = []  # sentences about what was chosen or left out, and rows that cannot be used
        self.trained: Trained | None = None
        self.failed: Failed | None = None
        self.loss = Series("loss")
        self.valid_loss = Series("validation")
        self.speeds: deque[float] = deque(maxlen=SPEEDS)
        self._engine = engine
        self._stream: Stream | None = None

    @property
    def best(self) -> Validation | None:
        """The lowest validation loss so far."""
        return self.bests[-1] if self.bests else None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def resumable(self) -> bool:
        """Whether it ended early and left something to go on from."""
        return self.state in ("stopped", "failed") and (bool(self.saved) or self.request.resume)

    @property
    def stops_within_s(self) -> float:
        """Seconds in which it should have stopped once it is asked to: the step under way, and a save."""
        if self.over or self.step is None:
            return 0.0
        return min(LONGEST_STOP_S, 3 * self.step.elapsed_s / self.step.step)

    async def follow(self) -> None:
        """Submits the request and takes all that comes of it; starts the engine where it is not running."""
        try:
            if not self._engine.alive:
                await self._engine.start()
        except MacllmError as error:
            self.take(Failed(str(error), error.exit_code, type(error).__name__))
            return
        self._stream = self._engine.submit(self.request)
        async for batch in self._stream:
            for event in batch:
                self.take(event)
        if not self.over:
            self.take(_UNSAID)

    def stop(self) -> None:
        """Ends it after the step under way; it is saved and can be resumed."""
        if self._stream is not None and self.state in ("starting", "running"):
            self.state = "stopping"
            self.revision += 1
            self._stream.cancel()

    def take(self, event: Any) -> None:
        """One event of the stream."""
        self.revision += 1
        match event:
            case Loading():
                self.loading = event
            case Preparing():
                self.preparing = event
            case Notice():
                self.notes.append(event.message)
            case Planned():
                self._begin(event)
            case TrainStep():
                self.step = event
                self.loss.append(event.step, event.loss)
                self.speeds.append(event.tokens_per_s)
            case Validation():
                self.validation = event
                self.valid_loss.append(event.step, event.loss)
                self.bests += [event] if event.best else []
            case Sample():
                self.samples.append(event)
                self.sampled += 1
            case Saved():
                self.saved.append(event)
            case Trained():
                self.trained = event
                self.state = "stopped" if event.reason == "stopped" else "finished"
            case Failed():
                self.failed = event
                self.state = "failed"
            case Done() if not self.over:
                self.state = "stopped"

    def _begin(self, planned: Planned) -> None:
        """The plan is there; where an earlier run goes on, what it did after its last save is forgotten."""
        self.planned = planned
        self.notes += planned.notes
        if self.state == "starting":
            self.state = "running"
        self.loss.cut(planned.resumed_step)
        self.valid_loss.cut(planned.resumed_step)
        self.samples = deque((s for s in self.samples if s.step <= planned.resumed_step), maxlen=SAMPLES)
        self.saved = deque((s for s in self.saved if s.step <= planned.resumed_step), maxlen=SAVES)
        self.bests = [each for each in self.bests if each.step <= planned.resumed_step]

    def resumed(self) -> "TrainingRun":
        """The run that goes on from this one's last save, with its curves."""
        request = Train(
            self.request.model, self.request.data, self.request.adapter, self.request.settings, resume=True
        )
        run = TrainingRun(self._engine, request)
        run.loss, run.valid_loss, run.bests = self.loss, self.valid_loss, self.bests
        run.samples, run.saved, run.sampled = self.samples, self.saved, self.sampled
        return run
