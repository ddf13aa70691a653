"""Runs a fine-tuning that is set up: shown live or in lines, told to callbacks, stopped well by ctrl+c."""

import math
import sys
from collections.abc import Iterable
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

from macllm.cli.finetune_lines import Lines
from macllm.cli.finetune_watch import Watched, ending_words, resume_words, use_words
from macllm.cli.interrupts import Interrupts
from macllm.cli.output import print_json, tell
from macllm.errors import Cancelled

if TYPE_CHECKING:
    from macllm.cli.finetune_request import Request
    from macllm.engine.training_events import TrainingEvent
    from macllm.tune.callbacks import CallbackFeed
    from macllm.tune.setup import Setup


class View(Protocol):
    """Shows a run on stderr while its block runs."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, event: "TrainingEvent") -> None:
        """An event that was taken."""

    def remark(self, text: str) -> None:
        """Something that is not the run's."""

    def stopping(self) -> None:
        """It was asked to end; from any thread."""

    def gone(self) -> None:
        """The process is about to end at once; from any thread."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> object:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, event: "TrainingEvent") -> None:
        pass

    def remark(self, text: str) -> None:
        pass

    def stopping(self) -> None:
        pass

    def gone(self) -> None:
        pass


def train(setup: "Setup", request: "Request", *, as_json: bool) -> None:
    """Runs it to its end. Raises Cancelled where it was stopped and can go on, MacllmError where it failed."""
    from macllm.tune.callbacks import CallbackFeed
    from macllm.tune.parallel import World
    from macllm.tune.reporters import reporters
    from macllm.tune.run import run

    job = setup.job
    watched = Watched(job.name or str(job.base), str(job.folder))
    first = World.here().first  # of several processes one alone tells
    view = _view(watched, request) if first else Silent()
    names = request.report_to if first else ()
    with ExitStack() as stack:
        # they print: stdout is for what was asked for
        stack.enter_context(redirect_stdout(sys.stderr))
        feed = CallbackFeed(reporters(names, job.folder, request.project, _config(setup)), request.every or 1)
        stack.callback(feed.close)
        stack.enter_context(Interrupts(lambda: ask(watched, view), lambda: leave(watched, view)))
        stack.enter_context(view)
        _follow(run(setup, cancelled=lambda: watched.stopping), watched, view, feed)
    if first:
        _end(watched, as_json=as_json)


def _view(watched: Watched, request: "Request") -> View:
    if not sys.stderr.isatty():
        return Lines(watched, request.every)
    from rich.console import Console

    from macllm.cli.finetune_live import LiveView

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        return Lines(watched, request.every)
    return LiveView(watched, f"fine-tuning {watched.base} -> {watched.folder}", console)


def _follow(events: "Iterable[TrainingEvent]", watched: Watched, view: View, feed: "CallbackFeed") -> None:
    told = True
    for event in events:
        watched.take(event)
        view.show(event)
        try:
            if told:
                feed.take(event)
        except Exception as error:  # a service that is away must not cost what was learned
            told = False
            watched.remarks.append(f"no more reports: {error}")
            view.remark(watched.remarks[-1])


def ask(watched: Watched, view: View) -> None:
    """The run is to end after the step under way."""
    watched.stopping = True
    view.stopping()


def leave(watched: Watched, view: View) -> None:
    """The process is about to end at once: says what there is to go on from."""
    view.gone()
    if watched.saved is None:
        tell("\nmacllm: ended at once; nothing was saved yet")
    else:
        tell(
            f"\nmacllm: ended at once; go on after step {watched.saved.step} with `{resume_words(watched.folder)}`"
        )


def _end(watched: Watched, *, as_json: bool) -> None:
    trained = watched.trained
    assert trained is not None
    if as_json:
        print_json(_as_json(watched))
    if trained.reason == "stopped":
        steps = f" of {watched.step.steps}" if watched.step is not None else ""
        raise Cancelled(
            f"stopped and saved after step {trained.step}{steps}; go on with `{resume_words(watched.folder)}`"
        )
    if not as_json:
        print(ending_words(watched))
        print(f"chat with it: {use_words(watched)}")


def _config(setup: "Setup") -> dict[str, Any]:
    job = setup.job
    return {**setup.settings, "model": job.name or str(job.base), "data": str(job.data)}


def _as_json(watched: Watched) -> dict[str, Any]:
    trained, step, planned = watched.trained, watched.step, watched.planned
    assert trained is not None
    best, first = watched.best, watched.first
    return {
        "path": trained.path,
        "base": watched.base,
        "reason": trained.reason,
        "steps": trained.step,
        "resumed_step": planned.resumed_step if planned is not None else 0,
        "train_loss": _finite(trained.train_loss),
        "valid_loss": _finite(trained.valid_loss),
        "first_valid_loss": _finite(first.loss) if first is not None else None,
        "best_step": best.step if best is not None else None,
        "trainable_parameters": planned.trainable_parameters if planned is not None else None,
        "estimated_bytes": planned.estimated_bytes if planned is not None else None,
        "tokens": step.tokens if step is not None else 0,
        "supervised_tokens": step.supervised_tokens if step is not None else 0,
        "tokens_per_s": step.tokens / step.elapsed_s if step is not None and step.elapsed_s else None,
        "peak_memory_bytes": step.peak_memory_bytes if step is not None else None,
        "wall_s": step.elapsed_s if step is not None else 0.0,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
