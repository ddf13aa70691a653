"""The status line: the same figures on one line, the most needed of them down to 60 columns."""

from dataclasses import replace

import pytest
from engine_moments import (
    DECODING,
    DIED,
    FINISHED,
    LOADED,
    LOADING,
    NOTHING,
    PLAIN,
    READING,
    REFUSED,
    STEPS,
    STOPPED,
    WRITING,
    shown,
)
from rich.cells import cell_len

from macllm.engine.events import Loading, Stats
from macllm_tui.settings import Settings
from macllm_tui.widgets.status import StatusLine

MOMENTS = {
    "nothing": NOTHING,
    "loading": LOADING,
    "loaded": LOADED,
    "reading": READING,
    "writing": DECODING,
    "finished": FINISHED,
    "stopped": STOPPED,
    "died": DIED,
    "refused": REFUSED,
}
# what is worth the line at its narrowest
NEEDED = {
    "nothing": "No model is loaded; ctrl+l chooses one",
    "loading": "loading 27 %",
    "loaded": "ready",
    "reading": "reading 92 %",
    "writing": "71.3 tok/s",
    "finished": "70.9 tok/s",
    "stopped": "stopped",
    "died": "The engine stopped; f8 starts it again",
    "refused": "failed",
}


async def status(events, width: int = 99, settings: Settings | None = None) -> str:
    (line,) = await shown(StatusLine(), width, 1, settings=settings, feed=events)
    return line


@pytest.mark.parametrize("width", [40, 60, 80, 99])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_every_moment_has_its_words_at_every_width(moment: str, width: int) -> None:
    line = await status(MOMENTS[moment], width)
    assert NEEDED[moment] in line
    assert cell_len(line) <= width
    assert not line.rstrip().endswith("·") and "· ·" not in line


async def test_parts_are_whole_or_not_there() -> None:
    everything = set((await status(DECODING, 300)).strip().split(" · "))
    assert {"71.3 tok/s", "412 tok", "TTFT 0.41 s", "1812 reused", "78 % accepted", "p99 19 ms"} <= everything
    assert {"KV 212 MB", "7.1 GB of 18.0 GB"} <= everything
    for width in range(20, 120, 7):
        assert set((await status(DECODING, width)).strip().split(" · ")) <= everything


async def test_more_columns_never_show_less() -> None:
    counts = [len((await status(DECODING, width)).split(" · ")) for width in range(20, 140, 10)]
    assert counts == sorted(counts)


async def test_short_memory_is_worth_more_than_other_figures() -> None:
    short = replace(WRITING, memory_pressure="critical")
    assert "pressure critical" in await status((*DECODING, Stats(short)), 60)
    assert "pressure" not in await status(DECODING, 300)  # normal is no news


async def test_the_rate_of_reading_is_there_when_known() -> None:
    assert "512 tok/s" in await status((*READING, Stats(WRITING)), 99)
    assert "1812 reused" in await status(READING, 99)


async def test_the_steps_are_drawn_where_there_is_room() -> None:
    assert "█████████▄" in await status(DECODING, 99)
    assert "█" not in await status((*READING[:-2], Stats(PLAIN, STEPS)), 30)


async def test_the_key_it_names_is_the_one_in_force() -> None:
    assert "f9 chooses one" in await status(NOTHING, settings=Settings(keys={"model": "f9"}))


async def test_a_models_name_cannot_steer_the_terminal() -> None:
    line = await status((Loading("a\x1b[2Jb", 1, 2),), 120)
    assert "\x1b" not in line and "␛[2Jb" in line
