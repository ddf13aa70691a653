"""A fine-tuning run in a pipe or a log: a line every so many steps, and one for each look, save and sample."""

from macllm.cli.finetune_watch import (
    Watched,
    figures_words,
    look_words,
    planned_words,
    preparing_words,
    sample_words,
    step_words,
)
from macllm.cli.output import tell
from macllm.engine.training_events import (
    Planned,
    Preparing,
    Sample,
    Saved,
    TrainingEvent,
    TrainStep,
    Validation,
)

FEW_STEPS, EVERY = 100, 10  # a run of up to so many steps has a line for each, a longer one for every tenth


class Lines:
    """Tells ``watched`` on stderr. ``every``: steps a line, by default as many as stay readable."""

    def __init__(self, watched: Watched, every: int | None = None) -> None:
        self._watched, self._every = watched, every
        self._losses: list[float] = []
        self._tenth = -1  # of the answers that the base was asked about

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, event: TrainingEvent) -> None:
        """The line of an event, where it has one."""
        match event:
            case Preparing():
                self._preparing(event)
            case Planned():
                tell(f"writing to {self._watched.folder}")
                tell(planned_words(event))
                for note in event.notes:
                    tell(f"note: {note}")
                if event.resumed_step:
                    tell(f"going on after step {event.resumed_step}")
            case TrainStep():
                self._step(event)
            case Validation():
                tell(look_words(event))
            case Sample():
                tell(f"sample at {sample_words(event)}")
            case Saved():
                tell(f"step {event.step}: saved")

    def remark(self, text: str) -> None:
        tell(f"note: {text}")

    def stopping(self) -> None:
        """It was asked to end."""
        tell("finishing this step and saving; ctrl+c again ends at once, without a save")

    def gone(self) -> None:
        """The process is about to end at once."""

    def _preparing(self, event: Preparing) -> None:
        """A line at the start, and one every tenth of the way."""
        tenth = 10 * event.done // event.total
        if tenth != self._tenth:
            tell(preparing_words(event))
        self._tenth = tenth

    def _step(self, step: TrainStep) -> None:
        self._losses.append(step.loss)
        every = self._every or (1 if step.steps <= FEW_STEPS else EVERY)
        if step.step % every == 0 or step.step in (1, step.steps):
            tell(step_words(step, sum(self._losses) / len(self._losses)) + figures_words(step))
            self._losses = []
