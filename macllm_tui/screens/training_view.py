"""A fine-tuning run as one watches it: progress, curves, speed, memory, samples. The run itself is elsewhere."""

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from macllm.adapters import kept
from macllm.engine.training_events import Sample, Trained
from macllm.plotting.braille import Curve
from macllm.units import duration, size
from macllm_tui.training import TrainingRun
from macllm_tui.widgets.gauges import bar
from macllm_tui.widgets.plot import Plot
from macllm_tui.widgets.sparkline import sparkline

DRAW_EVERY_S = 1 / 8

_NO_SAMPLES = "Samples of what the adapter answers come with each validation."


class Samples(OptionList):
    """The list of samples; enter unfolds one."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select", "unfold sample")]


class TrainingView(Vertical):
    """Shows ``run``; :meth:`show` changes it. It looks for news 8 times a second and draws only these."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "screen.stop_run", "stop"),
        Binding("c", "screen.chat_with", "chat"),
        Binding("r", "screen.resume_run", "resume"),
        Binding("e", "screen.edit", "edit form"),
        Binding("l", "logarithmic", "log scale"),
    ]
    DEFAULT_CSS = """
    TrainingView { padding: 0 1; }
    TrainingView > Static { height: auto; }
    TrainingView > #training-banner { display: none; padding: 0 1; margin-bottom: 1; max-height: 5; }
    TrainingView > #training-banner.-good { display: block; background: $surface; color: $text-success; }
    TrainingView > #training-banner.-bad { display: block; background: $surface; color: $text-error; }
    TrainingView > #training-banner.-note { display: block; background: $surface; color: $text; }
    TrainingView > #training-speed, TrainingView > #training-memory { color: $text-muted; }
    TrainingView > #training-notes { color: $text-muted; max-height: 6; }
    TrainingView > Plot { height: 2fr; min-height: 5; margin-top: 1; }
    TrainingView > Samples, TrainingView > Samples:focus {
        height: 1fr; min-height: 3; padding: 0; background: $background;
        border: none; border-top: solid $panel; border-title-color: $text-muted;
    }
    """

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        self._run = run
        self._drawn = -1
        self._state = ""
        self._listed = 0
        self._samples: list[Sample] = []
        self._unfolded: set[int] = set()

    @property
    def run(self) -> TrainingRun:
        return self._run

    def compose(self) -> ComposeResult:
        yield Static(id="training-banner", markup=False)
        yield Static(id="training-progress", markup=False)
        yield Static(id="training-figures", markup=False)
        yield Static(id="training-speed", markup=False)
        yield Static(id="training-memory", markup=False)
        yield Static(id="training-notes", markup=False)
        yield Plot(self._curves(), empty="The curves begin with the first step.")
        yield Samples(Option(_NO_SAMPLES, disabled=True), markup=False)

    def on_mount(self) -> None:
        self.query_one(Samples).border_title = "samples"
        self.set_interval(DRAW_EVERY_S, self.draw)
        self.draw()

    def show(self, run: TrainingRun) -> None:
        """Another run from now on."""
        self._run, self._drawn, self._state = run, -1, ""
        self.query_one(Plot).show(self._curves())
        self._list_again()
        self.draw()

    def draw(self) -> None:
        """Draws what is new; nothing where nothing is."""
        run = self._run
        if run.revision == self._drawn:
            return
        self._drawn = run.revision
        wide = self.size.width or self.app.size.width
        self.query_one("#training-progress", Static).update(progress_line(run, wide - 2))
        self.query_one("#training-figures", Static).update(losses_line(run))
        self.query_one("#training-speed", Static).update(speed_line(run, wide - 2))
        self.query_one("#training-memory", Static).update(memory_line(run))
        notes = self.query_one("#training-notes", Static)
        notes.update(notes_lines(run))
        notes.display = bool(run.notes)
        self.query_one(Plot).draw()
        self._list_samples()
        if run.state != self._state:
            self._state = run.state
            self._tell(*ending(run))
            self.screen.refresh_bindings()

    def on_resize(self) -> None:
        self._drawn = -1

    def action_logarithmic(self) -> None:
        plot = self.query_one(Plot)
        plot.logarithmic = not plot.logarithmic

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Unfolds a sample, or folds it again."""
        event.stop()
        self._unfolded ^= {event.option_index}
        event.option_list.replace_option_prompt_at_index(event.option_index, self._said(event.option_index))

    def _curves(self) -> tuple[Curve, Curve]:
        return Curve(self._run.loss), Curve(self._run.valid_loss, "◆", best=True)

    def _tell(self, sentence: str, kind: str) -> None:
        banner = self.query_one("#training-banner", Static)
        banner.update(sentence)
        banner.set_classes(kind)

    def _list_again(self) -> None:
        options = self.query_one(Samples)
        options.clear_options()
        options.add_option(Option(_NO_SAMPLES, disabled=True))
        self._samples, self._listed = [], self._run.sampled - len(self._run.samples)
        self._unfolded = set()

    def _list_samples(self) -> None:
        """Adds the samples that came; those no longer kept by the run stay listed."""
        if len(self._run.samples) < len(self._samples) and self._run.sampled < self._listed + 1:
            self._list_again()  # a resumed run forgot some
        new = (
            list(self._run.samples)[-(self._run.sampled - self._listed) :]
            if self._run.sampled > self._listed
            else []
        )
        options = self.query_one(Samples)
        if new and not self._samples:
            options.clear_options()
        for sample in new:
            self._samples.append(sample)
            options.add_option(Option(self._said(len(self._samples) - 1)))
        if new and not self._unfolded:  # the newest in sight, unless one is being read
            options.highlighted = len(self._samples) - 1
        self._listed = self._run.sampled

    def _said(self, index: int) -> str:
        sample = self._samples[index]
        if index in self._unfolded:
            return f"▾ step {sample.step}\n  {_indented(sample.prompt)}\n  → {_indented(sample.text)}"
        width = max(20, (self.size.width or self.app.size.width) - 4)
        prompt = _folded(sample.prompt)
        room = width * 3 // 5
        if len(prompt) > room:  # what was asked last stands at its end
            prompt = f"…{prompt[1 - room :]}"
        line = f"▸ step {sample.step}  {prompt} → {_folded(sample.text)}"
        return line if len(line) <= width else f"{line[: width - 1]}…"


def progress_line(run: TrainingRun, width: int) -> str:
    """What it is doing, how far it is, and how long it will take."""
    head = {
        "starting": "Getting ready",
        "running": "Learning",
        "stopping": "Stopping after this step",
        "finished": "Finished",
        "stopped": "Stopped",
        "failed": "Failed",
    }[run.state]
    if run.step is None:
        if run.preparing is not None and run.planned is None:
            share = run.preparing.done / run.preparing.total
            return f"Looking at the answers before learning  {bar(share, 1, 20)} {100 * share:.0f} %"
        if run.loading is not None and run.planned is None and run.loading.total:
            share = run.loading.done / run.loading.total
            return f"Loading {run.loading.model}  {bar(share, 1, 20)} {100 * share:.0f} %"
        if run.planned is None:
            return head
        p = run.planned
        return f"{head}: {p.steps:,} steps, {p.train_rows:,} rows, {p.trainable_parameters:,} parameters"
    step = run.step
    share = step.step / step.steps if step.steps else 0.0
    left = "" if run.over else f"  {duration(step.eta_s)} left"
    text = f"{head}  step {step.step:,} of {step.steps:,}"
    end = f" {100 * share:.0f} %{left}  after {duration(step.elapsed_s)}"
    room = width - len(text) - len(end) - 2
    return f"{text}  {bar(share, 1, min(40, room))}{end}" if room >= 8 else text + end


def losses_line(run: TrainingRun) -> str:
    """The losses now, and the best validation."""
    parts = [f"loss {run.step.loss:.3f}"] if run.step is not None else []
    if run.validation is not None:
        best = f", best {run.best.loss:.3f} at step {run.best.step}" if run.best is not None else ""
        parts.append(f"validation {run.validation.loss:.3f}{best}")
    return " · ".join(parts)


def speed_line(run: TrainingRun, width: int) -> str:
    """Tokens a second, now and before; learning rate; the last save."""
    if run.step is None:
        return ""
    speed = f"{run.step.tokens_per_s:,.0f} tok/s"
    rest = f" · rate {run.step.learning_rate:.2g}"
    rest += f" · saved at step {run.saved[-1].step}" if run.saved else ""
    room = min(40, width - len(speed) - len(rest) - 1, len(run.speeds))
    return f"{speed} {sparkline(run.speeds, room)[0]}{rest}" if room >= 4 else speed + rest


def memory_line(run: TrainingRun) -> str:
    """Memory against the limit, and what was expected."""
    planned = run.planned
    if run.step is None:
        return f"memory: {size(planned.estimated_bytes)} expected" if planned is not None else ""
    used, limit = run.step.memory_bytes, planned.memory_limit_bytes if planned is not None else 0
    peak = f"peak {size(run.step.peak_memory_bytes)}"
    if not limit:
        return f"memory {size(used)}, {peak}"
    return f"memory {bar(used, limit, 16)} {size(used)} of {size(limit)}, {peak}"


def notes_lines(run: TrainingRun) -> str:
    """What was chosen or left out; where it failed over its rows, these."""
    notes = [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in run.notes]
    return "\n".join(notes)


def ending(run: TrainingRun) -> tuple[str, str]:
    """The banner's sentence and its class; empty while the run goes on."""
    if run.state == "failed" and run.failed is not None:
        message = run.failed.message
        again = (
            " Press r to resume, or e to change the form."
            if run.resumable
            else " Press e to change the form."
        )
        return f"✗ {message[:1].upper()}{message[1:].rstrip('.')}.{again}", "-bad"
    trained = run.trained
    use = (
        f"Chat with it: press c, or macllm chat {run.request.model.name} --adapter {named(trained)}"
        if trained
        else ""
    )
    if run.state == "finished" and trained is not None:
        early = " early, since the validation loss no longer fell" if trained.reason == "early_stop" else ""
        loss = f", validation loss {trained.valid_loss:.3f}" if trained.valid_loss is not None else ""
        return f"✓ Finished{early} at step {trained.step}{loss}. {use}", "-good"
    if run.state == "stopped":
        at = f" at step {trained.step}" if trained is not None else ""
        again = (
            "Press r to resume." if run.resumable else "Nothing was learned yet; press e to change the form."
        )
        return f"Stopped{at}. {again} {use}".rstrip(), "-note"
    return "", ""


def named(trained: Trained) -> str:
    """What the adapter is called in a command: its name where it is kept with the others, else its folder."""
    path = Path(trained.path)
    return path.name if path.parent == kept.folder() else str(path)


def _folded(text: str) -> str:
    return " ".join(text.split())


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n    ")
