"""What the screen shows, as text and as a picture, when it has come to rest."""

import asyncio
import html
import io
import re
from collections.abc import Callable
from typing import Any

from rich.console import Console
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

STILL_FOR_S = 0.3  # longer than what is drawn by a clock waits: figures, curves, a count of tokens


async def settle(app: App[Any], pilot: Pilot[Any], busy: Callable[[], bool]) -> None:
    """Waits until nothing is under way, and the messages between widgets are read."""
    while busy():
        await pilot.pause()
        await asyncio.sleep(0.005)
    await pilot.pause()


async def steady(app: App[Any], pilot: Pilot[Any], busy: Callable[[], bool]) -> None:
    """Waits until nothing is under way and the screen stays as it is; its cursor no longer blinks."""
    clock = asyncio.get_running_loop().time
    shown, since = "", clock()
    while clock() - since < STILL_FOR_S:
        for screen in app.screen_stack:  # what is behind a drawer shines through
            for field in screen.query(Input):
                field.cursor_blink = False
            for area in screen.query(TextArea):
                area.cursor_blink = False
        await settle(app, pilot, busy)
        now = screen_text(app)
        if now != shown:
            shown, since = now, clock()
        await asyncio.sleep(0.01)


def screen_text(app: App[Any]) -> str:
    """The screen as text, a line each."""
    width, height = app.size
    console = Console(
        width=width,
        height=height,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        record=True,
        legacy_windows=False,
    )
    console.print(app.screen._compositor.render_update(full=True, screen_stack=app._background_screens))
    lines = console.export_text().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def picture(app: App[Any]) -> str:
    """The screen as SVG. Nothing in it is fetched from anywhere: it is shown in a font of the reader's own."""
    svg = App.export_screenshot(app, title="macllm", simplify=True)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return _RUN.sub(_placed, svg)


_RUN = re.compile(r' x="([\d.]+)" (y="[\d.]+") textLength="([\d.]+)" ([^>]*)>([^<]*)</text>')


def _placed(run: re.Match[str]) -> str:
    """A run of text where its first character stands: some programs leave out the blanks before it."""
    x, y, length, more, text = run.groups()
    spaced = html.unescape(text).replace("\N{NO-BREAK SPACE}", " ")
    cell = float(length) / max(len(spaced), 1)
    left = len(spaced) - len(spaced.lstrip(" "))
    inner = html.escape(spaced.strip(" "), quote=False).replace(" ", "&#160;")
    at, wide = round(float(x) + left * cell, 1), round(len(spaced.strip(" ")) * cell, 1)
    return f' x="{at:g}" {y} textLength="{wide:g}" {more}>{inner}</text>'
