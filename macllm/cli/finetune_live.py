"""A fine-tuning run on a terminal: the curves, the figures, the last sample; drawn anew at every size."""

import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.style import Style
from rich.text import Text

from macllm.cli.finetune_watch import Watched, counted, preparing_words, shown
from macllm.engine.training_events import TrainingEvent
from macllm.plotting.braille import AXIS, Curve, drawn
from macllm.units import count, duration, size

if TYPE_CHECKING:
    from macllm.engine.training_events import TrainStep

_FRAMES_A_SECOND = 4
_PATIENCE_S = 1.0  # with a frame that is being drawn
_LAST_ROWS = 14  # of the plot that stays when the run is over
_FEWEST_ROWS, _SAMPLE_ROWS = 5, 4
_SHORTEST_BAR = 6
_CURVES = ("cyan", "bold yellow")
_SOFT = "bright_black"
_BLOCKS = "▁▂▃▄▅▆▇█"
_LEAVE = b"\x1b[?1049l\x1b[?25h\x1b[0m"  # the terminal's other screen; the cursor is shown again


class LiveView:
    """Draws ``watched`` on the terminal's other screen while a block runs, and leaves the last picture behind."""

    def __init__(self, watched: Watched, title: str, console: Console | None = None) -> None:
        self._watched, self._title = watched, title
        self._console = console or Console(stderr=True)
        frame = Frame(watched, title)
        self._live = Live(
            frame,
            console=self._console,
            screen=True,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # what is printed at the very end would draw a frame behind it
            redirect_stderr=False,
        )
        self._drawing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True, name="live view")

    def __enter__(self) -> "LiveView":
        self._live.start(refresh=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._live.stop()
        if self._watched.step is not None:
            self._console.print(Frame(self._watched, self._title, rows=_LAST_ROWS))

    def show(self, event: TrainingEvent) -> None:
        """Nothing: what was taken is drawn with the next frame."""

    def remark(self, text: str) -> None:
        """It is among what is watched: the next frame tells it."""

    def stopping(self) -> None:
        """It was asked to end: the next frame says so."""

    def gone(self) -> None:
        """Gives the terminal back from any thread: the process is about to end at once, and draws no more."""
        self._over.set()
        self._drawing.acquire(timeout=_PATIENCE_S)
        os.write(sys.stderr.fileno(), _LEAVE)

    def _draw(self) -> None:
        while not self._over.wait(1 / _FRAMES_A_SECOND):
            with self._drawing:
                if not self._over.is_set():
                    self._live.refresh()


class Frame:
    """A picture of the run for the size at hand; ``rows`` of the plot, None: as many as there is room for."""

    def __init__(self, watched: Watched, title: str, rows: int | None = None) -> None:
        self._watched, self._title, self._rows = watched, title, rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        height = options.height or console.size.height
        yield from self.lines(width, height)

    def lines(self, width: int, height: int) -> list[Text]:
        """The lines from the top, none wider than ``width``; ``height`` bounds them where the plot's is not given."""
        over = self._rows is not None
        top = [_fit(Text(self._title, style="bold"), width), *progress_lines(self._watched, width)]
        below = [] if over else _sample(self._watched, width)
        if not over:
            below.append(Text(_hint(self._watched), style=_SOFT))
        room = height - len(top) - len(below) - 2  # an empty line above and below the plot
        while room < _FEWEST_ROWS and len(below) > 1:
            below.pop(0)
            room += 1
        rows = self._rows if self._rows is not None else room
        plot = [Text(), *_plot(self._watched, width, rows)] if rows >= _FEWEST_ROWS else []
        lines = [*top, *plot, *([Text()] if plot and below else []), *below]
        return [_fit(line, width) for line in (lines if over else lines[:height])]


def progress_lines(watched: Watched, width: int) -> list[Text]:
    """How far it is, and all figures: as many lines as they need."""
    step, planned = watched.step, watched.planned
    if planned is None and watched.preparing is not None:
        return [Text(f"Getting ready: {preparing_words(watched.preparing)} …", style=_SOFT)]
    if planned is None:
        return [Text("Getting ready: the model is loaded …", style=_SOFT)]
    if step is None:
        begin = (
            f"going on after step {planned.resumed_step}" if planned.resumed_step else "before the first step"
        )
        return [
            Text(f"{counted(planned.steps, 'step')} to go, {begin} …"),
            *_flow(_planned_parts(watched), width),
            *(_fit(Text(f"note: {note}", style=_SOFT), width) for note in planned.notes),
        ]
    head = f"step {step.step:,} of {step.steps:,}  "
    times = f"  {duration(step.elapsed_s)}"
    if watched.trained is None:
        times += f", {duration(step.eta_s)} left"
    share = step.step / step.steps if step.steps else 0.0
    line = Text.assemble(head, _bar(share, width - len(head) - len(times)), times)
    remarks = [Text(f"note: {remark}", style=_SOFT) for remark in watched.remarks[-1:]]
    return [line, *_flow(_parts(watched, step), width), *remarks]


def _planned_parts(watched: Watched) -> list[Text]:
    planned = watched.planned
    assert planned is not None
    limit = f" of {size(planned.memory_limit_bytes)}" if planned.memory_limit_bytes else ""
    return [
        Text(f"{counted(planned.train_rows, 'row')}, {planned.valid_rows:,} to validate with"),
        Text(f"{count(planned.trainable_parameters)} weights learn"),
        Text(f"about {size(planned.estimated_bytes)}{limit}"),
    ]


def _parts(watched: Watched, step: "TrainStep") -> list[Text]:
    planned, look, best = watched.planned, watched.validation, watched.best
    parts = [_figure("loss", f"{step.loss:.4f}")]
    if look is not None:
        told = f", best {best.loss:.4f} at step {best.step}" if best is not None else ""
        parts.append(_figure("validation", f"{look.loss:.4f}{told}"))
    parts += [
        _figure("epoch", f"{step.epoch:.2f}"),
        _figure("rate", f"{step.learning_rate:.3g}"),
        _figure("gradient", f"{step.grad_norm:.3g}"),
        _figure("speed", f"{step.tokens_per_s:,.0f} tok/s {_spark(watched.speeds)}"),
    ]
    parts += [_figure(name.replace("_", " "), f"{value:.4g}") for name, value in step.figures.items()]
    limit = f" of {size(planned.memory_limit_bytes)}" if planned and planned.memory_limit_bytes else ""
    expected = f", {size(planned.estimated_bytes)} expected" if planned else ""
    parts.append(
        _figure("memory", f"{size(step.memory_bytes)}, peak {size(step.peak_memory_bytes)}{limit}{expected}")
    )
    parts.append(_figure("tokens", f"{step.tokens:,}, {step.supervised_tokens:,} learned"))
    if watched.saved is not None:
        parts.append(_figure("saved at step", f"{watched.saved.step:,}"))
    return parts


def _figure(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", _SOFT), value.rstrip())


def _flow(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts behind each other, as many in a line as have room."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], "   ", part)
        else:
            lines.append(part)
    return lines


def _bar(share: float, width: int) -> Text:
    """A bar and the share in words; where there is no room for a bar, the words."""
    words = f"{share:.0%}"
    room = min(40, width - len(words) - 1)
    if room < _SHORTEST_BAR:
        return Text(words)
    done = round(share * room)
    return Text.assemble(("━" * done, "cyan"), ("━" * (room - done), _SOFT), f" {words}")


def _spark(values: Sequence[float]) -> str:
    """The last speeds, each the highest block that it reaches."""
    last = list(values)[-12:]
    high = max(last, default=0.0)
    return "".join(_BLOCKS[round(value / high * (len(_BLOCKS) - 1))] for value in last) if high > 0 else ""


def _plot(watched: Watched, width: int, rows: int) -> list[Text]:
    curves = (Curve(watched.loss), Curve(watched.valid_loss, "◆", best=True))
    styles = {0: Style.parse(_CURVES[0]), 1: Style.parse(_CURVES[1]), AXIS: Style.parse(_SOFT)}
    lines = drawn(curves, width, rows, empty="The curves begin with the first step.")
    return [Text.assemble(*((text, styles[owner]) for text, owner in line)) for line in lines]


def _sample(watched: Watched, width: int) -> list[Text]:
    sample = watched.sample
    if sample is None:
        return []
    prompt = Text.assemble((f"step {sample.step} ", _SOFT), shown(sample.prompt))
    answer = Text.assemble(("→ ", _SOFT), shown(sample.text))
    wrapped = _wrapped(answer, width)[: _SAMPLE_ROWS - 1]
    return [_fit(prompt, width), *wrapped]


def _wrapped(text: Text, width: int) -> list[Text]:
    return list(text.wrap(Console(width=width), width))


def _hint(watched: Watched) -> str:
    if watched.stopping:
        return "finishing this step and saving; ctrl+c again ends at once, without a save"
    return "ctrl+c saves and stops"


def _fit(line: Text, width: int) -> Text:
    """The line, cut where it is wider."""
    line.no_wrap, line.overflow = True, "ellipsis"
    line.truncate(width, overflow="ellipsis")
    return line
