"""Pictures of the app: the same on every machine, in every order of tests, and looked at before they were accepted.

``pytest tests/tui/test_snapshots.py --snapshot-update`` takes them again; look at every one that changed.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from conversations import RECORDINGS, comparison, conversation, crash
from simulated import NOON
from telling import MAC, Telling
from textual.pilot import Pilot
from training_player import Gate

from macllm.chats import rows
from macllm.engine.recording import Recording, ReplayEngine, read_recording
from macllm_tui import model_rows
from macllm_tui.app import MacllmApp, Start
from macllm_tui.home import RecordedHome
from macllm_tui.model_rows import Facts, Row
from macllm_tui.pictures import picture, screen_text, steady
from macllm_tui.player import Player, Watched
from macllm_tui.replay import playable
from macllm_tui.screens import models
from macllm_tui.settings import Settings

SMALL, USUAL, LARGE = (80, 24), (120, 40), (200, 50)
SIZES = {"80x24": SMALL, "120x40": USUAL, "200x50": LARGE}
TWO = {"80x24": SMALL, "120x40": USUAL}
Compare: TypeAlias = Callable[..., bool]


class Pictured(MacllmApp):
    """The app, whose pictures fetch nothing, and which leaves nothing behind."""

    NOTIFICATION_TIMEOUT = 3600.0

    def export_screenshot(self, **_: Any) -> str:
        return picture(self)

    async def on_unmount(self) -> None:
        await self.engine.close()
        if self._store is not None:
            await self._store.close()


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One clock, one place, no colours that the environment asks for, and a disk of one size."""
    seconds = itertools.count()
    monkeypatch.setattr(rows, "now", lambda: f"2026-01-15T09:{next(seconds) // 60 % 60:02}:30.000000+00:00")
    monkeypatch.setattr(model_rows, "free_bytes", lambda: 212_000_000_000)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Scene:
    """The app on a recording: ``play`` takes it through, ``then`` goes on by hand, and the screen comes to rest."""

    def __init__(
        self,
        folder: Path,
        told: Telling | Recording,
        *,
        theme: str = "graphite",
        batches: int | None = None,
        begun: bool = True,
    ) -> None:
        recording = told.recording() if isinstance(told, Telling) else told
        self.recording, model = playable(recording, folder)
        pace = {"pace": "instant"} if batches is None else {"sleep": Gate(batches)}
        self.engine = Watched(ReplayEngine(self.recording, **pace))
        self.app = Pictured(
            self.engine,
            Settings(theme=theme),
            Start(),
            chats=folder / "chats.db",
            home=RecordedHome(model if begun else None),
            clock=lambda: NOON,
        )
        self.app.animation_level = "none"

    def taken(self, *keys: str, then: Callable[[Pilot[Any]], Awaitable[None]] | None = None) -> Any:
        """What is done before the picture is taken: the whole recording, then keys."""

        async def run(pilot: Pilot[Any]) -> None:
            player = Player(self.app, pilot, self.engine, [one.request for one in self.recording.exchanges])
            await player.play()
            await steady(self.app, pilot, player.busy)
            for key in keys:
                await pilot.press(key)
                await steady(self.app, pilot, player.busy)
            if then is not None:
                await then(pilot)
                await steady(self.app, pilot, player.busy)

        return run

    def held(self, text: str, sign: str) -> Any:
        """Says something, of which the engine answers no more than the gate lets through."""

        async def run(pilot: Pilot[Any]) -> None:
            await self.app.begun.wait()
            self.app.chat_screen.prompt.text = text
            await pilot.press("enter")
            await until(pilot, lambda: sign in screen_text(self.app))
            await steady(self.app, pilot, lambda: False)

        return run


async def until(pilot: Pilot[Any], holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await pilot.pause(0.01)


every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
both_sizes = pytest.mark.parametrize("size", TWO.values(), ids=TWO)
every_theme = pytest.mark.parametrize("theme", ["graphite", "paper"])


@every_theme
@every_size
def test_conversation(snap_compare: Compare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    scene = Scene(tmp_path, conversation(), theme=theme)
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.taken())


@every_theme
@every_size
def test_beginning_of_a_conversation(
    snap_compare: Compare, tmp_path: Path, size: tuple[int, int], theme: str
) -> None:
    """Scrolled up to the first message, its thinking unfolded, the message chosen."""
    scene = Scene(tmp_path, conversation(), theme=theme)
    taken = scene.taken("ctrl+t", "alt+up", "alt+up", "alt+up", "alt+up")
    assert snap_compare(scene.app, terminal_size=size, run_before=taken)


@every_theme
@every_size
def test_reply_being_written(
    snap_compare: Compare, tmp_path: Path, size: tuple[int, int], theme: str
) -> None:
    scene = Scene(tmp_path, conversation(), theme=theme, batches=36)
    held = scene.held("Explain MLA, with the projection in code", "def project")
    assert snap_compare(scene.app, terminal_size=size, run_before=held)


def test_thinking(snap_compare: Compare, tmp_path: Path) -> None:
    scene = Scene(tmp_path, conversation(), batches=18)
    held = scene.held("Explain MLA, with the projection in code", "thinking")
    assert snap_compare(scene.app, terminal_size=SMALL, run_before=held)


@every_theme
@every_size
def test_crash(snap_compare: Compare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    scene = Scene(tmp_path, crash(), theme=theme)
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.taken())


def keys_of(name: str) -> tuple[str, ...]:
    from macllm_tui.actions import BY_ID

    return (BY_ID[name].key,)


@both_sizes
@pytest.mark.parametrize("name", ["help", "palette", "sampler", "search", "system"])
def test_drawer(snap_compare: Compare, tmp_path: Path, size: tuple[int, int], name: str) -> None:
    told = conversation().say("Write a haiku about rain", "Night rain, a taxi.", session="c2")
    told.say("Which rank for LoRA?", "Eight is enough.", session="c3")
    scene = Scene(tmp_path, told)
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.taken(*keys_of(name)))


@both_sizes
def test_comparison(snap_compare: Compare, tmp_path: Path, size: tuple[int, int]) -> None:
    scene = Scene(tmp_path, comparison())
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.taken())


@both_sizes
def test_fine_tune(snap_compare: Compare, tmp_path: Path, size: tuple[int, int]) -> None:
    scene = Scene(tmp_path, read_recording(RECORDINGS / "training.jsonl"))
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.taken())


@both_sizes
def test_a_question_in_a_full_context(snap_compare: Compare, tmp_path: Path, size: tuple[int, int]) -> None:
    from test_replay import too_long

    scene = Scene(tmp_path, too_long(Telling().load()))
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.taken())


# -- models: what is here and what there is does not come from this machine

CATALOGUE = [
    Row(
        name="qwen3-0.6b",
        title="Qwen3 0.6B",
        source="qwen3-0.6b",
        section="catalogue",
        size_bytes=335_000_000,
        parameters=596_000_000,
        quantization="4 bit",
        format="safetensors for MLX",
        context=40_960,
        licence="apache-2.0",
        description="Small and quick; thinks before it answers.",
    ),
    Row(
        name="qwen3-8b",
        title="Qwen3 8B",
        source="qwen3-8b",
        section="catalogue",
        here=True,
        owned=True,
        folder="/models/qwen3-8b",
        size_bytes=4_615_000_000,
        parameters=8_190_000_000,
        quantization="4 bit",
        format="safetensors for MLX",
        context=40_960,
        licence="apache-2.0",
        description="The best all-round model for 16 GB.",
        draft="qwen3-0.6b",
        used="2026-01-15",
    ),
    Row(
        name="qwen3-32b",
        title="Qwen3 32B",
        source="qwen3-32b",
        section="catalogue",
        size_bytes=18_440_000_000,
        parameters=32_800_000_000,
        quantization="4 bit",
        format="safetensors for MLX",
        context=40_960,
        licence="apache-2.0",
        description="For machines with 36 GB and more.",
    ),
]


@pytest.fixture
def fixed_models(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [row for row in CATALOGUE if row.here]
    read = {"installed": lambda: here, "catalogue": lambda: CATALOGUE, "search": list}
    monkeypatch.setattr(models, "_READ", read)
    monkeypatch.setattr(model_rows, "facts_of", lambda row: Facts())
    monkeypatch.setattr(model_rows, "starter_row", lambda: CATALOGUE[0])
    monkeypatch.setattr(model_rows, "recommended", lambda limit: CATALOGUE[1:])


@both_sizes
@pytest.mark.parametrize("section", ["installed", "catalogue"])
def test_models(
    snap_compare: Compare, tmp_path: Path, size: tuple[int, int], section: str, fixed_models: None
) -> None:
    scene = Scene(tmp_path, conversation())
    keys = (*keys_of("model"), "1" if section == "installed" else "2", "down")
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.taken(*keys))


@both_sizes
def test_welcome(snap_compare: Compare, tmp_path: Path, size: tuple[int, int], fixed_models: None) -> None:
    scene = Scene(tmp_path, conversation(), begun=False)

    async def come(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "More models" in screen_text(scene.app))
        await until(pilot, lambda: scene.engine.machine == MAC)
        await steady(scene.app, pilot, lambda: False)

    assert snap_compare(scene.app, terminal_size=size, run_before=come)


def test_pictures_fetch_nothing_and_name_no_folder_of_this_machine() -> None:
    pictures = sorted((Path(__file__).parent / "__snapshots__" / "test_snapshots").glob("*.svg"))
    assert len(pictures) > 30
    for path in pictures:
        svg = path.read_text()
        assert not re.search(r"font-face|url\(http|href|/work|/home|/Users|/tmp", svg), path.name
    assert sum(path.stat().st_size for path in pictures) < 6_000_000
