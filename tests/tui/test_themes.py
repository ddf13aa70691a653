"""Themes: contrast computed, colour left out where it is not wanted, terminals without it."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from contrast import contrast
from textual.app import App, ComposeResult
from textual.color import Color
from textual.theme import Theme
from textual.widgets import OptionList

from macllm_tui import themes

GROUNDS = ("background", "surface", "panel")
WORDS = (
    *(
        "text",
        "text-muted",
        "text-disabled",
        "foreground",
        "foreground-muted",
        "footer-key-foreground",
        "link-color",
    ),
    *(f"{prefix}{name}" for prefix in ("", "text-") for name in themes._NAMED),
    *(f"markdown-h{level}-color" for level in range(1, 7)),
)
ON_GROUND_OF_THEIR_OWN = (
    ("block-cursor-foreground", "block-cursor-background"),
    ("block-cursor-blurred-foreground", "block-cursor-blurred-background"),
    ("input-selection-foreground", "input-selection-background"),
    ("screen-selection-foreground", "screen-selection-background"),
    ("link-color-hover", "link-background-hover"),
    ("input-cursor-foreground", "input-cursor-background"),
    *(("button-color-foreground", name) for name in themes._NAMED),
    *(("text", name) for name in themes._NAMED),
)
COLOURED = [theme for theme in themes.THEMES if not theme.ansi]


def pairs(theme: Theme) -> Iterator[tuple[float, str, str]]:
    """The contrast of every kind of word on every ground it is written on."""
    variables = {**theme.to_color_system().generate(), **theme.variables}
    for word, ground_name in (
        *((word, ground) for word in WORDS for ground in GROUNDS),
        *ON_GROUND_OF_THEIR_OWN,
    ):
        ground = Color.parse(variables[ground_name])
        written = variables[word]
        if written.startswith("auto"):
            colour = ground.get_contrast_text(float(written.removeprefix("auto").strip(" %")) / 100)
        else:
            colour = Color.parse(written)
        yield contrast(ground + colour, ground), word, ground_name


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert contrast(Color.parse("#000"), Color.parse("#fff")) == pytest.approx(21)
    assert contrast(Color.parse("#777"), Color.parse("#fff")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", COLOURED, ids=lambda theme: theme.name)
def test_every_word_can_be_read_on_every_ground(theme: Theme) -> None:
    needed = 7.0 if theme.name == "contrast" else 4.5
    assert [pair for pair in pairs(theme) if pair[0] < needed] == []


def test_there_are_dark_light_and_the_terminals_own() -> None:
    assert len(themes.THEMES) >= 6 and len(set(themes.NAMES)) == len(themes.NAMES)
    assert sum(not theme.dark for theme in COLOURED) >= 2
    assert sum(theme.dark for theme in COLOURED) >= 3
    assert [theme.name for theme in themes.THEMES if theme.ansi] == [themes.WITHOUT_COLOUR]
    assert themes.DEFAULT in themes.NAMES


def test_every_name_that_styles_can_use_is_in_every_theme() -> None:
    def names(theme: Theme) -> set[str]:
        return {*theme.to_color_system().generate(), *theme.variables}

    everything = set().union(*(names(theme) for theme in COLOURED))
    assert [everything - names(theme) for theme in themes.THEMES] == [set()] * len(themes.THEMES)


class Choice(App[None]):
    """An app with a chosen line."""

    def __init__(self, theme: str) -> None:
        super().__init__(**themes.app_arguments())
        self.used = themes.install(self, theme)

    def compose(self) -> ComposeResult:
        yield OptionList("first", "second")

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = 0


@pytest.mark.parametrize("name", themes.NAMES)
async def test_every_theme_can_be_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    app = Choice(name)
    async with app.run_test():
        assert app.used == app.current_theme.name == name
        for other in themes.NAMES:
            app.theme = other


async def test_an_unknown_theme_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    app = Choice("pink")
    async with app.run_test():
        assert app.current_theme.name == themes.DEFAULT


async def test_without_colour_the_chosen_line_is_still_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = Choice("paper")
    async with app.run_test() as pilot:
        await pilot.pause()
        assert app.current_theme.name == themes.WITHOUT_COLOUR
        choice = app.query_one(OptionList)
        marked = {
            segment.text.strip(): segment.style.bold and segment.style.underline
            for line in choice.render_lines(choice.region.reset_offset)
            for segment in line
            if segment.style
        }
        assert marked["first"] and not marked["second"]


PROGRAM = """
from test_themes import Choice
class Shown(Choice):
    def on_ready(self):
        self.set_timer(0.2, self.exit)
Shown("paper").run()
print("left in good order")
"""


def on_terminal(**environment: str) -> str:
    """What a real run of the app writes to a terminal of this kind."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    plain = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM", "TERM")
    }
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=root,
        env={**plain, "PYTHONPATH": f"{root}{os.pathsep}{Path(__file__).parent}", **environment},
    )
    os.close(follower)
    said = b""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    said += os.read(leader, 65536)
                except OSError:  # the other side is closed
                    break
            elif process.poll() is not None:
                break
        assert process.wait(10) == 0, said.decode()
    finally:
        process.kill()
        os.close(leader)
    return said.decode()


def coloured(said: str) -> set[str]:
    """The colour codes in it."""
    codes = (code for run in re.findall(r"\x1b\[([0-9;]*)m", said) for code in run.split(";"))
    return {code for code in codes if re.fullmatch(r"[349][0-8]|10[0-7]", code)}


def test_a_terminal_gets_colours_and_with_no_color_none() -> None:
    assert coloured(on_terminal(TERM="xterm-256color"))
    said = on_terminal(TERM="xterm-256color", NO_COLOR="1")
    assert "second" in said and not coloured(said)


@pytest.mark.parametrize("term", ["vt100", "dumb"])
def test_a_terminal_that_knows_no_colour_does_not_crash(term: str) -> None:
    said = on_terminal(TERM=term)
    assert "second" in said and "left in good order" in said
