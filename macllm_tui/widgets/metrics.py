"""The panel of live figures: prefill, time to first token, decode, cache, drafting, memory."""

from dataclasses import dataclass

from textual.content import Content
from textual.geometry import Region
from textual.timer import Timer
from textual.widget import Widget

from macllm.engine.figures import waits
from macllm.engine.metrics import Metrics
from macllm.units import size
from macllm_tui.bindings import called
from macllm_tui.readings import PHASES, Readings
from macllm_tui.widgets.gauges import bar, cut, large, percent
from macllm_tui.widgets.sparkline import sparkline

DRAW_EVERY_S = 0.2  # figures come eight times a second; nobody reads them faster than this
PRESSURE = {  # in words, and in the colour of the bar
    "normal": ("pressure normal", "$success"),
    "warn": ("pressure high", "$warning"),
    "critical": ("pressure critical", "$error"),
}
_NEAR = 0.9  # of the limit
_SHOWN_FROM_S = 0.01
_WHOLE_FROM = 100  # tokens a second: a large figure with a decimal would leave no room beside it
_SPARE, _LARGE_FROM, _TALL_FROM = 9, 31, 24


@dataclass(frozen=True)
class Line:
    """A line of the panel. Where there are too many, those of the highest rank go first."""

    content: Content
    rank: int = 0


class Live(Widget):
    """Shows :class:`Readings`; drawn at most every ``DRAW_EVERY_S``, at once where something ended."""

    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self.readings = Readings()
        self._drawing: Timer | None = None

    def feed(self, event: object) -> None:
        """Takes an event of the engine; costs next to nothing."""
        at_once = self.readings.take(event)
        if not self.is_running:
            return
        if at_once:
            self._draw()
        elif self._drawing is None:
            self._drawing = self.set_timer(DRAW_EVERY_S, self._draw)

    def _draw(self) -> None:
        if self._drawing is not None:
            self._drawing.stop()
            self._drawing = None
        self._refresh()

    def _refresh(self) -> None:
        self.refresh()


class MetricsPanel(Live):
    """The figures beside the conversation."""

    DEFAULT_CSS = """
    MetricsPanel {
        width: 28; height: 1fr; padding: 0 1; border-left: solid $panel;
        background: $background; color: $foreground; text-wrap: nowrap;
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[Content] = []

    def render(self) -> Content:
        self._shown = self._lines()
        return Content("\n").join(self._shown)

    def _lines(self) -> list[Content]:
        width, height = self.content_size
        keys = called(self.app, "model"), called(self.app, "restart")
        sections = _sections(self.readings, width, height, *keys)
        return [line.content for line in fitting(sections, height)]

    def _refresh(self) -> None:
        """Only the lines that differ: a screen drawn whole eight times a second costs the engine its time."""
        old, new = self._shown, self._lines()
        if len(old) != len(new):
            self.refresh()
            return
        width = self.content_size.width
        differ = (not line.is_same(before) for before, line in zip(old, new, strict=True))
        regions = [Region(0, row, width, 1) for row, other in enumerate(differ) if other]
        if regions:
            self.refresh(*regions)


def fitting(sections: list[list[Line]], height: int) -> list[Line]:
    """The sections with a blank line between them, without the least needed lines where there is no room."""
    lines: list[Line] = []
    for section in sections:
        if section:
            lines += [Line(Content(""), _SPARE), *section] if lines else section
    while len(lines) > height > 0:
        worst = max(range(len(lines)), key=lambda place: (lines[place].rank, place))
        del lines[worst]
    return lines


def _sections(
    readings: Readings, width: int, height: int, model_key: str, restart_key: str
) -> list[list[Line]]:
    m = readings.metrics
    if readings.phase == "failed" and readings.ready is None:
        return [_sentence("The engine stopped.", f"{restart_key} starts it again.")]
    if readings.loading is not None:
        return [_loading(readings, width), _memory(readings, width), _foot(readings, width)]
    if readings.ready is None and m is None and readings.phase == "nothing":
        return [_sentence("No model is loaded.", f"{model_key} chooses one."), _foot(readings, width)]
    return [
        _prefill(readings, width),
        _first_token(m, width) if m is not None else [],
        _decode(readings, width, height),
        _cache(m, width) if m is not None else [],
        _drafting(m, width) if m is not None else [],
        _memory(readings, width),
        _foot(readings, width),
    ]


def _sentence(what: str, remedy: str) -> list[Line]:
    return [Line(Content(what)), Line(Content.styled(remedy, "$foreground-muted"))]


def _title(name: str, width: int, value: str = "", style: str = "bold", rank: int = 0) -> Line:
    """``NAME          value``."""
    room = max(width - len(name) - len(value), 1)
    return Line(Content.assemble((name, "$foreground-muted"), " " * room, (value, style)), rank)


def _spread(left: str, right: str, width: int, rank: int) -> Line:
    return Line(Content(left + " " * max(width - len(left) - len(right), 1) + right), rank)


def _loading(readings: Readings, width: int) -> list[Line]:
    loading = readings.loading
    assert loading is not None
    return [
        _title("LOADING", width, f"{percent(loading.done, loading.total)} %"),
        Line(Content(cut(loading.model, width))),
        Line(Content.styled(bar(loading.done, loading.total, width), "$primary"), 1),
        Line(Content(f"{size(loading.done)} of {size(loading.total)}"), 2),
    ]


def _prefill(readings: Readings, width: int) -> list[Line]:
    prefill, m = readings.prefill, readings.metrics
    if prefill is None:
        if readings.ready is not None and m is None:
            return _sentence("Ready.", "Figures follow a reply.")
        return []
    lines = [
        _title("PREFILL", width, f"{percent(prefill.done, prefill.total)} %"),
        Line(Content.styled(bar(prefill.done, prefill.total, width), "$primary"), 3),
    ]
    rate = f"{m.prefill_tps:.0f} tok/s" if m is not None and m.prefill_tps > 0 else ""
    lines.append(_spread(f"{prefill.done}/{prefill.total}", rate, width, 2))
    if prefill.reused:
        lines.append(Line(Content(f"{prefill.reused} reused"), 2))
    return lines


def _first_token(m: Metrics, width: int) -> list[Line]:
    if m.ttft_s <= 0:
        return []
    load, queue = waits(m)
    waited = [
        _spread(f"  {name}", f"{seconds:.2f} s", width, 4)
        for name, seconds in (("load", load), ("queue", queue))
        if seconds >= _SHOWN_FROM_S
    ]
    return [_title("TTFT", width, f"{m.ttft_s:.2f} s"), *waited]


def _decode(readings: Readings, width: int, height: int) -> list[Line]:
    m, writing = readings.metrics, readings.phase == "writing"
    if m is None or not m.decode_tokens:
        return (
            [_title("DECODE", width, PHASES[readings.phase])]
            if readings.phase in ("stopped", "failed")
            else []
        )
    # while it writes, what it does now; afterwards, what the line under the reply says
    rate = m.recent_tps if writing and m.recent_tps > 0 else m.decode_tps
    count = f"{m.decode_tokens} tok"
    lines = [_title("DECODE", width, PHASES[readings.phase] or "done", "", 1)]
    if height >= _LARGE_FROM and rate > 0:
        first, second, third = large(f"{rate:.1f}" if rate < _WHOLE_FROM else f"{rate:.0f}")
        lines += [
            Line(Content.styled(first, "bold $primary"), 1),
            Line(Content.styled(second, "bold $primary")),
        ]
        spare = width - len(third) - len(count) - 2  # thousands a second, or hundreds of thousands of tokens
        unit = next((unit for unit in ("tok/s", "t/s") if len(unit) <= spare), "")
        room = max(width - len(third) - 1 - len(unit) - len(count), 1)
        lines.append(Line(Content.assemble((third, "bold $primary"), f" {unit}", " " * room, count)))
    else:
        word = f"{rate:.1f} tok/s" if rate > 0 else "–"
        room = max(width - len(word) - len(count), 1)
        lines.append(Line(Content.assemble((word, "bold $primary"), " " * room, count)))
    tall = 2 if height >= _TALL_FROM else 1
    spark = sparkline(list(readings.rates(width)), width, tall)
    lines += [Line(Content.styled(row, "$secondary"), 3) for row in spark]
    if writing:
        other = f"mean {m.decode_tps:.1f}"
    else:
        other = f"last 32: {m.recent_tps:.1f}" if m.recent_tps > 0 else ""
    lines.append(_spread(other, f"p99 {m.step_ms_p99:.0f} ms" if m.step_ms_p99 > 0 else "", width, 2))
    if m.thinking_s > 0:
        lines.append(Line(Content(f"thought {m.thinking_s:.1f} s · {m.thinking_tokens} tok"), 4))
    return lines


def _cache(m: Metrics, width: int) -> list[Line]:
    if not m.kv_bytes:
        return []
    lines = [_title("KV", width, size(m.kv_bytes), rank=1)]
    if len(m.kv_by_kind) > 1 or set(m.kv_by_kind) - {"full"}:
        lines += [_spread(f"  {kind}", size(held), width, 5) for kind, held in m.kv_by_kind.items() if held]
    return lines


def _drafting(m: Metrics, width: int) -> list[Line]:
    if not m.draft_tested:
        return []
    lines = [_title("SPEC", width, f"{100 * m.acceptance:.0f} %", rank=1)]
    lines.append(Line(Content(f"{m.draft_accepted} of {m.draft_tested} accepted"), 4))
    if m.mean_accepted > 0:
        lines.append(Line(Content(f"{m.mean_accepted:.1f} tok a step"), 4))
    return lines


def memory(readings: Readings) -> tuple[int, int, int]:
    """Bytes in use, at their highest, and at most: of the reply, else of the model and the machine."""
    m, ready, machine = readings.metrics, readings.ready, readings.machine
    if m is not None and m.memory_bytes:
        return m.memory_bytes, m.peak_memory_bytes, m.memory_limit_bytes
    return (
        ready.memory_bytes if ready is not None else 0,
        0,
        machine.memory_limit_bytes if machine is not None else 0,
    )


def memory_word(readings: Readings) -> tuple[str, str]:
    """What to say of memory, and its colour: the system's pressure, else whether the limit is near."""
    m = readings.metrics
    active, _, limit = memory(readings)
    if m is not None and m.memory_pressure in PRESSURE:
        return PRESSURE[m.memory_pressure]
    return ("near the limit", "$warning") if 0 < limit * _NEAR <= active else ("", "$success")


def _memory(readings: Readings, width: int) -> list[Line]:
    active, peak, limit = memory(readings)
    if not active:
        return []
    word, colour = memory_word(readings)
    lines = [_title("MEM", width, word, colour, 1)]
    if limit:
        lines.append(Line(Content.styled(bar(active, limit, width, peak), colour), 3))
        lines.append(Line(Content(f"{size(active)} of {size(limit)}"), 1))
    else:
        lines.append(Line(Content(size(active)), 1))
    if peak:
        lines.append(Line(Content(f"peak {size(peak)}"), 4))
    return lines


def _foot(readings: Readings, width: int) -> list[Line]:
    machine, m = readings.machine, readings.metrics
    lines = (
        [Line(Content.styled(cut(readings.model, width), "$foreground-muted"), 5)] if readings.ready else []
    )
    backend = (m.backend if m else "") or (machine.backend if machine else "")
    dtype = (m.dtype if m else "") or (machine.dtype if machine else "")
    if backend:
        lines.append(Line(Content.styled(" · ".join(filter(None, (backend, dtype))), "$foreground-muted"), 6))
    return lines
