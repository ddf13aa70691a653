"""The panel of figures: what each moment of the engine shows, and that nothing of it is lost or made up."""

import re
import time
from dataclasses import replace

import pytest
from engine_moments import (
    DECODING,
    DIED,
    FINISHED,
    LOADED,
    LOADING,
    MACHINE,
    NOTHING,
    PLAIN,
    READING,
    READY,
    REFUSED,
    STEPS,
    STOPPED,
    WRITING,
    Shows,
    lines_of,
    shown,
)
from hypothesis import given
from hypothesis import strategies as st

from macllm.engine.events import Done, Loading, Prefill, Stats, Token
from macllm.engine.metrics import Metrics
from macllm_tui.readings import Readings
from macllm_tui.settings import Settings
from macllm_tui.widgets.gauges import bar, cut, large, percent, tokens
from macllm_tui.widgets.metrics import DRAW_EVERY_S, MetricsPanel
from macllm_tui.widgets.sparkline import sparkline

COLUMNS = 28


async def panel(events, height: int = 40, settings: Settings | None = None) -> str:
    lines = await shown(MetricsPanel(), COLUMNS, height, settings=settings, feed=events)
    assert all(len(line) <= COLUMNS for line in lines)
    return "\n".join(lines)


def squeezed(text: str) -> str:
    """With one space where there are several."""
    return re.sub(" +", " ", text)


# -- moments ---------------------------------------------------------------------------------------------


async def test_without_a_model_it_says_what_to_do() -> None:
    text = await panel(NOTHING)
    assert "No model is loaded." in text and "ctrl+l chooses one." in text and "metal" in text


async def test_the_key_it_names_is_the_one_in_force() -> None:
    assert "f9 chooses one" in await panel(NOTHING, settings=Settings(keys={"model": "f9"}))
    assert "/model chooses one" in await panel(NOTHING, settings=Settings(keys={"model": ""}))


async def test_a_load_shows_how_far_it_is() -> None:
    text = await panel(LOADING)
    assert "LOADING" in text and "27 %" in text and "1.2 GB of 4.4 GB" in text and "qwen3-8b" in text
    assert "█" in text and "░" in text


async def test_a_loaded_model_shows_its_memory_and_waits() -> None:
    text = await panel(LOADED)
    assert "Ready." in text and "4.4 GB of 18.0 GB" in text and "qwen3-8b" in text and "LOADING" not in text


@pytest.mark.parametrize("rate", [9.9, 99.96, 722.4, 4321.0])
@pytest.mark.parametrize("count", [7, 295, 12_345])
async def test_the_large_figure_and_the_count_stay_on_their_lines(rate: float, count: int) -> None:
    fast = replace(PLAIN, decode_tps=rate, recent_tps=rate, decode_tokens=count)
    lines = (await panel((*DECODING, Done("stop", "", fast)))).split("\n")
    shows = [number for number, line in enumerate(lines) if line.rstrip().endswith(f" {count} tok")]
    digits = [number for number, line in enumerate(lines) if "┗" in line or "┛" in line or "╹" in line]
    assert len(shows) == 1 and digits and shows[0] == digits[-1]


async def test_reading_shows_how_far_how_fast_and_what_was_reused() -> None:
    text = await panel(READING)
    assert all(word in text for word in ("PREFILL", "92 %", "1900/2048", "1812 reused"))
    assert "512 tok/s" in await panel((*READING, Stats(WRITING)))


async def test_writing_shows_every_figure() -> None:
    text = squeezed(await panel(DECODING, 30))
    for words in (
        *("PREFILL", "100 %", "512 tok/s", "1812 reused", "TTFT", "0.41 s", "queue 0.09 s"),
        *("DECODE", "writing", "71.3 tok/s", "412 tok", "mean 70.9", "p99 19 ms", "thought 4.2 s"),
        *("KV", "212 MB", "full 180 MB", "sliding 32.0 MB"),
        *("SPEC", "78 %", "78 of 100 accepted", "3.3 tok a step"),
        *("MEM", "pressure normal", "7.1 GB of 18.0 GB", "peak 9.9 GB", "qwen3-8b", "metal · bfloat16"),
    ):
        assert words in text, words


async def test_what_was_not_measured_is_not_there() -> None:
    text = await panel((*READING, Token(1, "x"), Stats(PLAIN, STEPS)))
    for words in ("SPEC", "thought", "full", "queue", "load", "pressure"):
        assert words not in text, words
    assert "212 MB" in text


async def test_a_load_within_the_reply_is_told_apart_from_the_queue() -> None:
    waited = replace(WRITING, ttft_s=2.0)
    assert (
        squeezed(await panel((*READING, Token(1, "x"), Stats(waited)))).count("load 1.20 s\n│ queue 0.48 s")
        == 1
    )


async def test_the_last_figures_stay_when_it_is_done() -> None:
    text = await panel(FINISHED, 30)
    assert "70.9 tok/s" in text and "done" in text  # the mean: what the line under the reply says
    assert "last 32: 71.3" in text
    assert "stopped" in await panel(STOPPED)


async def test_a_new_reply_leaves_the_last_ones_figures_behind() -> None:
    text = await panel((*FINISHED, Prefill(0, 100, 0)))
    assert "0 %" in text and "DECODE" not in text and "TTFT" not in text and "SPEC" not in text


async def test_a_dead_engine_says_which_key_starts_it() -> None:
    assert "The engine stopped." in await panel(DIED) and "f8 starts it again." in await panel(DIED)
    text = await panel((*DIED, MACHINE))
    assert "No model is loaded." in text


async def test_a_refused_request_leaves_the_model() -> None:
    text = await panel(REFUSED)
    assert "failed" in text and "qwen3-8b" in text


async def test_a_stopped_load_leaves_no_model() -> None:
    assert "No model is loaded." in await panel((*LOADING, Done("cancelled", "", Metrics())))


async def test_a_switch_shows_the_new_models_load_and_not_the_old_figures() -> None:
    text = await panel((*FINISHED, Loading("gemma", 1, 100)))
    assert "gemma" in text and "1 %" in text and "71.3" not in text and "qwen3" not in text


# -- memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pressure", "bytes_", "words"),
    [
        ("normal", 17_900_000_000, "pressure normal"),  # the system knows better than the limit
        ("warn", 7_000_000_000, "pressure high"),
        ("critical", 7_000_000_000, "pressure critical"),
        ("", 17_000_000_000, "near the limit"),
    ],
)
async def test_memory_is_judged_in_words(pressure: str, bytes_: int, words: str) -> None:
    metrics = replace(PLAIN, memory_pressure=pressure, memory_bytes=bytes_)
    assert words in await panel((*READING, Stats(metrics)))


# -- room ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [12, 16, 20, 22, 28, 34])
async def test_the_most_needed_is_there_at_every_height(height: int) -> None:
    lines = (await panel(DECODING, height)).split("\n")
    text = "\n".join(lines)
    for words in ("PREFILL", "TTFT", "tok/s", "412 tok"):
        assert words in text, (height, words)
    assert len(lines) <= height


async def test_a_tall_panel_writes_the_rate_large() -> None:
    text = await panel(DECODING, 40)
    assert all(line in text for line in large("71.3"))


async def test_it_can_be_drawn_before_it_has_room() -> None:
    app = Shows(MetricsPanel())
    async with app.run_test(size=(1, 1)) as pilot:
        for event in DECODING:
            app.widget.feed(event)
        await pilot.resize_terminal(30, 3)
        assert lines_of(app.widget)


# -- drawing ---------------------------------------------------------------------------------------------


class Counting(MetricsPanel):
    """Counts how often it is drawn."""

    drawn = 0

    def render(self):
        self.drawn += 1
        return super().render()


async def test_a_flood_of_events_is_drawn_a_few_times() -> None:
    app = Shows(Counting())
    async with app.run_test(size=(COLUMNS, 40)) as pilot:
        for event in READING:
            app.widget.feed(event)
        await pilot.pause()
        before, began = app.widget.drawn, time.monotonic()
        for number in range(2000):
            app.widget.feed(Token(number, "x"))
            app.widget.feed(Stats(replace(WRITING, decode_tokens=number + 2), STEPS))
            if number % 100 == 0:
                await pilot.pause()
        while "2001 tok" not in "\n".join(lines_of(app.widget)):
            assert time.monotonic() - began < 30
            await pilot.pause(0.01)
        most = (time.monotonic() - began) / DRAW_EVERY_S + 2
        assert 0 < app.widget.drawn - before <= most


async def test_the_end_is_drawn_at_once() -> None:
    app = Shows(Counting())
    async with app.run_test(size=(COLUMNS, 40)) as pilot:
        for event in FINISHED:
            app.widget.feed(event)
        await pilot.pause()
        assert "done" in "\n".join(lines_of(app.widget))
        before = app.widget.drawn
        await pilot.pause(3 * DRAW_EVERY_S)
        assert app.widget.drawn == before  # an idle engine costs nothing


def test_events_before_the_panel_is_there_are_kept() -> None:
    early = MetricsPanel()
    early.feed(MACHINE)
    early.feed(READY)
    assert early.readings.model == "qwen3-8b" and early.readings.phase == "idle"


def test_readings_know_the_phase() -> None:
    phases = []
    readings = Readings()
    for event in FINISHED:
        readings.take(event)
        phases.append(readings.phase)
    assert phases == ["nothing", "loading", "idle", *["reading"] * 3, "writing", "writing", "idle"]


# -- gauges ----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(), max_size=80), st.integers(0, 40), st.integers(1, 3))
def test_a_sparkline_is_as_wide_as_asked_whatever_the_values(values, width, height) -> None:
    lines = sparkline(values, width, height)
    assert len(lines) == height and all(len(line) == width for line in lines)


def test_a_sparkline_is_true_to_scale_and_shows_the_newest() -> None:
    assert sparkline([1, 2, 4, 8], 4) == ["▁▂▄█"]
    assert sparkline([9, 9, 1, 2, 4, 8], 4) == ["▁▂▄█"]
    assert sparkline([8, 8], 4) == ["  ██"]
    assert sparkline([4, 8], 2, 2) == [" █", "██"]
    assert sparkline([], 3) == ["   "]
    assert sparkline([0.001, 8], 2) == ["▁█"]


async def test_a_slow_step_is_a_dip() -> None:
    text = await panel(DECODING, 20)
    assert "█████████▄" in text


@given(st.floats(0, 1e12), st.floats(1, 1e12), st.integers(2, 60), st.floats(0, 1e12))
def test_a_bar_is_as_wide_as_asked_and_tells_some_from_none_and_all(part, whole, width, peak) -> None:
    drawn = bar(part, whole, width, peak)
    assert len(drawn) == width and drawn == "".join(sorted(drawn, key="█▒░".index))
    assert drawn.startswith("█") == (part > 0)
    assert ("░" not in drawn) == (max(part, peak) >= whole)


def test_percent_says_100_only_when_all_is_there() -> None:
    assert [percent(part, 1000) for part in (0, 1, 999, 1000, 1001)] == [0, 0, 99, 100, 100]
    assert percent(1, 0) == 0


def test_tokens_are_named_as_contexts_are() -> None:
    assert [tokens(count) for count in (0, 812, 3174, 4096, 32768, 40960, 131072, 1048576)] == [
        *("0", "812", "3.1k", "4k", "32k", "40k", "128k", "1M")
    ]


def test_names_are_cut_by_columns_and_cannot_steer_the_terminal() -> None:
    assert cut("qwen3-8b", 8) == "qwen3-8b" and cut("qwen3-8b", 6) == "qwen3…"
    assert cut("模型模型", 5) == "模型…" and cut("a", 0) == ""
    assert "\x1b" not in cut("a\x1b[2Jb\nc", 20) and "\n" not in cut("a\nb", 20)
