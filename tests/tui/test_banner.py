"""The notice over the prompt: its sentence, its keys, and that all of it can be read in a narrow terminal."""

import pytest
from engine_moments import Shows, lines_of

from macllm_tui.settings import Settings
from macllm_tui.widgets.banner import Banner

DIED = "The engine stopped: killed by the system, most likely out of memory. The reply so far is kept."


async def banner(width: int, *told, settings: Settings | None = None, **more) -> str:
    app = Shows(Banner(), settings)
    async with app.run_test(size=(width, 20)) as pilot:
        assert not app.widget.display and app.widget.text == ""
        app.widget.show(*told, **more)
        await pilot.pause()
        assert app.widget.text == told[0]
        lines = lines_of(app.widget)
        app.widget.hide()
        await pilot.pause()
        assert not app.widget.display and app.widget.text == ""
        return " ".join(" ".join(line.strip("█▌▐ ") for line in lines).split())


@pytest.mark.parametrize("width", [40, 60, 80, 120])
async def test_all_of_a_notice_can_be_read_at_every_width(width: int) -> None:
    text = await banner(width, DIED, severity="error", key="restart", acts="starts it again")
    assert text == f"■ Error: {DIED} f8 starts it again esc hides this"


async def test_the_severity_is_a_word_and_a_sign() -> None:
    assert (await banner(80, "a", severity="warning")).startswith("▲ Note: a")
    assert (await banner(80, "a", severity="error")).startswith("■ Error: a")
    assert await banner(80, "a") == "• a esc hides this"


async def test_the_keys_are_those_in_force() -> None:
    settings = Settings(keys={"restart": "f9", "stop": "f10"})
    text = await banner(80, "a", key="restart", acts="starts it again", settings=settings)
    assert text == "• a f9 starts it again f10 hides this"


async def test_a_key_that_leaves_is_not_named_twice() -> None:
    assert await banner(80, "Editing.", key="esc", acts="leaves it") == "• Editing. esc leaves it"


async def test_what_an_error_says_is_shown_as_it_is() -> None:
    assert (
        await banner(80, "no [model] 'a\x1b[2J'", severity="error")
        == "■ Error: no [model] 'a␛[2J' esc hides this"
    )


async def test_a_second_notice_replaces_the_first() -> None:
    app = Shows(Banner())
    async with app.run_test(size=(80, 20)) as pilot:
        app.widget.show("first " * 30, severity="error")
        await pilot.pause()
        tall = app.widget.outer_size.height
        app.widget.show("second")
        await pilot.pause()
        assert app.widget.outer_size.height < tall
        assert "first" not in "".join(lines_of(app.widget)) and not app.widget.has_class("-error")
