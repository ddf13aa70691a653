"""Runs the app on a recording, without a terminal or a model: for demos, pictures and bug reports."""

import io
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from textual.pilot import Pilot

from macllm.chats.records import StoredMessage
from macllm.engine.protocol import Generate, Load, ModelRef, Request, Train
from macllm.engine.recording import ReplayEngine
from macllm.errors import InputError
from macllm_tui.app import MacllmApp
from macllm_tui.home import RecordedHome
from macllm_tui.settings import Settings
from macllm_tui.training import TrainingRun

NOON = datetime(2026, 1, 15, 12, 0)  # a fixed clock, so that the same recording gives the same picture


def replay(recording: Path, size: tuple[int, int], screenshot: Path | None, theme: str | None = None) -> str:
    """Plays a recording to its end and returns the last screen: as text, or as SVG, written to ``screenshot`` too.

    Raises InputError for a damaged recording.
    """
    engine = ReplayEngine(recording, pace="instant")
    shown: list[str] = []
    with tempfile.TemporaryDirectory(prefix="macllm-replay-") as folder:
        settings = Settings(theme=theme) if theme is not None else Settings()
        chats, home = Path(folder) / "chats.db", RecordedHome(_model(engine.requests))
        app = MacllmApp(engine, settings, chats=chats, home=home, clock=lambda: NOON)

        async def drive(pilot: Pilot[object]) -> None:
            await play(app, pilot, engine.requests)
            shown.append(_svg(app) if screenshot is not None else screen_text(app))
            await app.leave()

        app.run(headless=True, size=size, auto_pilot=drive)
    if not shown:
        raise InputError(f"{recording}: the app ended before the recording did; record it again")
    if screenshot is not None:
        screenshot.write_text(shown[0], encoding="utf-8")
    return shown[0]


async def play(app: MacllmApp, pilot: Pilot[object], requests: Sequence[Request]) -> None:
    """Says in the app what was said in the recording, and waits for each reply."""
    await app.begun.wait()
    for request in requests:
        if isinstance(request, Generate):
            await _say(app, request)
        elif isinstance(request, Train):
            app.training = TrainingRun(app.engine, request)
            await app.open_finetune()
        await settle(app, pilot)


async def settle(app: MacllmApp, pilot: Pilot[object]) -> None:
    """Waits until no reply is under way and the screen shows all there is."""
    await app.workers.wait_for_complete(
        [worker for worker in app.workers if worker.group in ("replies", "actions", "load")]
    )
    await pilot.pause()
    await pilot.wait_for_scheduled_animations()


async def _say(app: MacllmApp, request: Generate) -> None:
    """The recorded request's last message, on the branch that its others stand for."""
    conversation, screen = app.conversation, app.chat_screen
    spoken = [message for message in request.messages if message.role != "system"]
    branch = conversation.branch
    same = 0
    while same < min(len(spoken), len(branch)) and _alike(branch[same], spoken[same].text, spoken[same].role):
        same += 1
    left = spoken[same:]
    parent = branch[same - 1].id if same else None
    if request.continue_final and left:
        await screen.start(await conversation.resume(branch[same].id, left[-1].text))
    elif not left:
        await screen.start(await conversation.answer(parent))
    else:
        at_end = same == len(branch)
        reply = await conversation.say(left[-1].text, parent, branch=not at_end)
        await screen.start(reply, appended=at_end)


def _alike(message: StoredMessage, text: str, role: str) -> bool:
    return message.role == role and message.text == text


def _model(requests: Sequence[Request]) -> ModelRef | None:
    found = (request.model for request in requests if isinstance(request, Load | Generate | Train))
    return next(found, None)


def _console(app: MacllmApp) -> Console:
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
    console.print(app.screen._compositor.render_update(full=True))
    return console


def screen_text(app: MacllmApp) -> str:
    lines = _console(app).export_text().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _svg(app: MacllmApp) -> str:
    import re

    svg = app.export_screenshot(title="macllm")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no font is fetched from anywhere
