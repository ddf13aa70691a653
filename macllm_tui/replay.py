"""Runs the app on a recording, without a terminal or a model: for demos, pictures and bug reports."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from textual.pilot import Pilot

from macllm.engine.protocol import Count, Generate, Load, ModelRef, Train
from macllm.engine.recording import Exchange, Recording, ReplayEngine, read_recording
from macllm.errors import InputError
from macllm_tui.app import MacllmApp
from macllm_tui.home import RecordedHome
from macllm_tui.pictures import picture, screen_text, steady
from macllm_tui.player import Player, Watched
from macllm_tui.settings import Settings

__all__ = ["replay", "screen_text"]

NOON = datetime(2026, 1, 15, 12, 0)  # a fixed clock, so that the same recording gives the same picture
STUCK_AFTER_S = 60.0  # without a word of the engine: far longer than the slowest machine draws


class ReplayApp(MacllmApp):
    """The app, whose notices stay: what is seen does not depend on how fast it was played."""

    NOTIFICATION_TIMEOUT = 3600.0


def replay(source: Path, size: tuple[int, int], screenshot: Path | None, theme: str | None = None) -> str:
    """Plays a recording to its end and returns the last screen: as text, or as SVG, written to ``screenshot`` too.

    Nothing of the user's is read or changed. Raises InputError for a damaged recording, for one that the app
    does not come to the end of, and where the picture cannot be written.
    """
    recording, model = playable(read_recording(source), source)
    engine = Watched(ReplayEngine(recording, pace="instant"))
    requests = [exchange.request for exchange in recording.exchanges]
    shown: list[str] = []
    with tempfile.TemporaryDirectory(prefix="macllm-replay-") as folder:
        settings = Settings(theme=theme) if theme is not None else Settings()
        chats, home = Path(folder) / "chats.db", RecordedHome(model)
        app = ReplayApp(engine, settings, chats=chats, home=home, clock=lambda: NOON)

        async def drive(pilot: Pilot[object]) -> None:
            app.animation_level = "none"
            player = Player(app, pilot, engine, requests)

            async def play() -> None:
                await player.play()
                await steady(app, pilot, player.busy)

            def stuck() -> InputError:
                done = f"after {player.done} of its {len(requests)} requests"
                return InputError(f"{source}: the app came to no rest {done}, so there is no last screen")

            await unless_stuck(play(), lambda: engine.said, stuck)
            shown.append(picture(app) if screenshot is not None else screen_text(app))
            await app.leave()

        app.run(headless=True, size=size, auto_pilot=drive)
    if not shown:
        raise InputError(f"{source}: the app ended before the recording did; record it again")
    if screenshot is not None:
        _write(screenshot, shown[0])
    return shown[0]


async def unless_stuck(
    work: Coroutine[None, None, None], progress: Callable[[], int], stuck: Callable[[], Exception]
) -> None:
    """Awaits work that is to be ended where it makes no progress for ``STUCK_AFTER_S``."""
    task = asyncio.ensure_future(work)
    while not task.done():
        before = progress()
        await asyncio.wait({task}, timeout=STUCK_AFTER_S)
        if not task.done() and progress() == before:
            task.cancel()
            raise stuck()
    await task


def playable(recording: Recording, source: Path) -> tuple[Recording, ModelRef]:
    """The recording as the app plays it, and the model it begins with. Raises InputError where there is none.

    How often a draft was counted depends on how fast it was typed, so no count is played. What begins without
    a load, as nobody's own recording does, gets one that says nothing.
    """
    exchanges = [one for one in recording.exchanges if not isinstance(one.request, Count)]
    first = exchanges[0].request if exchanges else None
    if not isinstance(first, Load | Generate | Train):
        raise InputError(f"{source}: nothing was asked in it, so there is nothing to show; record it again")
    if not isinstance(first, Load):
        exchanges.insert(0, Exchange(Load(first.model), ()))
    return replace(recording, exchanges=tuple(exchanges)), first.model


def _write(path: Path, svg: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(svg, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; give another place") from None
    finally:
        partial.unlink(missing_ok=True)
