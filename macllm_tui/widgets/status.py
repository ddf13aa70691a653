"""The figures on one line, where the terminal is too narrow for the panel."""

from typing import NamedTuple

from rich.cells import cell_len
from textual.content import Content

from macllm.engine.metrics import Metrics
from macllm.units import size
from macllm_tui.bindings import called
from macllm_tui.readings import PHASES, Readings
from macllm_tui.widgets.gauges import bar, cut, percent
from macllm_tui.widgets.metrics import Live, memory, memory_word
from macllm_tui.widgets.sparkline import sparkline

_DOT = " · "
_SPARK, _BAR, _NAME = 10, 12, 40


class Part(NamedTuple):
    """A piece of the line. Where there is no room, those of the highest rank go first."""

    text: str
    rank: int
    style: str = ""


class StatusLine(Live):
    """``▅▆▆▇▆▆▅▇▇▆ 71.3 tok/s · 412 tok · TTFT 0.41 s · 1812 reused · KV 212 MB · 7.1 of 18 GB``."""

    DEFAULT_CSS = """
    StatusLine { width: 1fr; height: 1; padding: 0 1; background: $surface; color: $foreground; text-wrap: nowrap; }
    """

    def render(self) -> Content:
        keys = called(self.app, "model"), called(self.app, "restart")
        shown = fitting(_parts(self.readings, *keys), self.content_size.width)
        return Content(_DOT).join(Content.styled(part.text, part.style) for part in shown)


def fitting(parts: list[Part], width: int) -> list[Part]:
    """The parts that have room, the others left out; the last one that stays is cut."""
    shown = [part for part in parts if part.text]
    while len(shown) > 1 and _width(shown) > width:
        worst = max(range(len(shown)), key=lambda place: (shown[place].rank, place))
        del shown[worst]
    if shown and _width(shown) > width:
        shown = [shown[0]._replace(text=cut(shown[0].text, width))]
    return shown


def _width(parts: list[Part]) -> int:
    return sum(cell_len(part.text) for part in parts) + len(_DOT) * max(len(parts) - 1, 0)


def _parts(readings: Readings, model_key: str, restart_key: str) -> list[Part]:
    loading, m = readings.loading, readings.metrics
    if readings.phase == "failed" and readings.ready is None:
        return [Part(f"The engine stopped; {restart_key} starts it again", 0)]
    if loading is not None:
        return [
            Part(f"loading {percent(loading.done, loading.total)} %", 0),
            Part(bar(loading.done, loading.total, _BAR), 1, "$primary"),
            Part(f"{size(loading.done)} of {size(loading.total)}", 2),
            Part(cut(loading.model, _NAME), 3),
        ]
    if readings.phase == "reading":
        return _reading(readings)
    if m is not None:
        return [*_written(readings, m), *_memory(readings)]
    if readings.ready is not None:
        state = PHASES[readings.phase] or "ready"
        return [Part(state, 0), Part(cut(readings.ready.model, _NAME), 2), *_memory(readings)]
    return [Part(f"No model is loaded; {model_key} chooses one", 0)]


def _reading(readings: Readings) -> list[Part]:
    prefill, m = readings.prefill, readings.metrics
    assert prefill is not None
    return [
        Part(f"reading {percent(prefill.done, prefill.total)} %", 0),
        Part(bar(prefill.done, prefill.total, _BAR), 1, "$primary"),
        Part(f"{prefill.done}/{prefill.total} tok", 2),
        Part(f"{prefill.reused} reused" if prefill.reused else "", 3),
        Part(f"{m.prefill_tps:.0f} tok/s" if m is not None and m.prefill_tps > 0 else "", 4),
        *_memory(readings),
    ]


def _written(readings: Readings, m: Metrics) -> list[Part]:
    writing = readings.phase == "writing"
    rate = m.recent_tps if writing and m.recent_tps > 0 else m.decode_tps
    spark = sparkline(list(readings.rates(_SPARK)), _SPARK)[0].strip()
    return [
        Part("" if writing else PHASES[readings.phase], 1),
        Part(spark, 5, "$primary"),
        Part(f"{rate:.1f} tok/s" if rate > 0 else "", 0, "bold"),
        Part(f"{m.decode_tokens} tok" if m.decode_tokens else "", 2),
        Part(f"TTFT {m.ttft_s:.2f} s" if m.ttft_s > 0 else "", 3),
        Part(f"{m.reused_tokens} reused" if m.reused_tokens else "", 7),
        Part(f"{100 * m.acceptance:.0f} % accepted" if m.draft_tested else "", 6),
        Part(f"p99 {m.step_ms_p99:.0f} ms" if m.step_ms_p99 > 0 else "", 8),
        Part(f"KV {size(m.kv_bytes)}" if m.kv_bytes else "", 9),
    ]


def _memory(readings: Readings) -> list[Part]:
    """Its word is worth more than its figures: it is there when something is wrong."""
    active, _, limit = memory(readings)
    word, colour = memory_word(readings)
    used = f"{size(active)} of {size(limit)}" if limit else size(active)
    return [
        Part(used if active else "", 4),
        Part(word if active and colour != "$success" else "", 1, colour),
    ]
