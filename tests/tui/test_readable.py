"""What is drawn can be read: the contrast of every word on the screen, in every theme, and without colour."""

import pytest
from contrast import contrast
from engine_moments import DECODING, DIED, LOADING, WRITING
from textual.app import App, ComposeResult
from textual.color import Color
from textual.containers import Horizontal
from textual.screen import Screen

from macllm.engine.events import Stats
from macllm_tui import themes
from macllm_tui.bindings import bindings
from macllm_tui.screens.help import HelpScreen
from macllm_tui.settings import Settings
from macllm_tui.widgets.banner import Banner
from macllm_tui.widgets.footer import Footer
from macllm_tui.widgets.header import Header
from macllm_tui.widgets.metrics import MetricsPanel
from macllm_tui.widgets.status import StatusLine


def hard_to_read(screen: Screen, needed: float) -> list[tuple[float, str]]:
    """The words on the screen whose contrast is less than needed."""
    found = []
    for strip in screen._compositor.render_strips():
        for text, style, _ in strip:
            if style is None or not any(character.isalnum() for character in text):
                continue
            assert style.color is not None and style.bgcolor is not None, text
            words, ground = Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)
            ratio = contrast(words, ground)
            if ratio < needed:
                found.append((round(ratio, 2), text.strip()))
    return found


class Figures(App[None]):
    """All that shows figures and keys, at once."""

    BINDINGS = bindings("chat")
    CSS = "#row { height: 1fr; } #notices { width: 1fr; }"

    def __init__(self, theme: str) -> None:
        super().__init__(**themes.app_arguments())
        self.settings = Settings(theme=theme)

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(id="row"):
            yield Banner()
            yield MetricsPanel()
        yield StatusLine()
        yield Footer()

    def on_mount(self) -> None:
        themes.install(self, self.settings.theme)

    def show(self, events, used: int, severity) -> None:
        """Feeds all of it."""
        for event in events:
            self.query_one(MetricsPanel).feed(event)
            self.query_one(StatusLine).feed(event)
        self.query_one(Header).show(model="Qwen3", preset="coder", context_tokens=used, max_context=1000)
        self.query_one(Banner).show(
            "Something happened.", severity=severity, key="restart", acts="starts it again"
        )
        self.refresh()


MOMENTS = (
    (LOADING, 100, "information"),
    (DECODING, 850, "warning"),
    ((*DECODING, Stats(WRITING)), 990, "error"),
    (DIED, 1000, "error"),
)


@pytest.mark.parametrize("name", [name for name in themes.NAMES if name != themes.WITHOUT_COLOUR])
async def test_every_word_drawn_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    needed = 7.0 if name == "contrast" else 4.5
    app = Figures(name)
    async with app.run_test(size=(120, 40)) as pilot:
        for moment in MOMENTS:
            app.show(*moment)
            await pilot.pause()
            assert hard_to_read(app.screen, needed) == []
        await pilot.resize_terminal(92, 30)  # the help covers what is behind it
        await app.push_screen(HelpScreen())
        await pilot.pause()
        await pilot.pause()
        assert hard_to_read(app.screen, needed) == []


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_without_colour_states_differ_in_what_is_written(size, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = Figures("graphite")
    pictures = []
    async with app.run_test(size=size) as pilot:
        for moment in MOMENTS:
            app.show(*moment)
            await pilot.pause()
            strips = app.screen._compositor.render_strips()
            assert all(
                s.style is None or s.style.color is None or s.style.color.triplet is None
                for t in strips
                for s in t
            )
            pictures.append("\n".join(strip.text for strip in strips))
    assert len(set(pictures)) == len(MOMENTS)
    assert ["▲ Note" in picture for picture in pictures] == [False, True, False, False]
    assert ["■ Error" in picture for picture in pictures] == [False, False, True, True]
