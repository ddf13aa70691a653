"""Recording the app: what a real engine said is said again, privately, and never over another file."""

import asyncio
import errno
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import chatty
import pytest
from simulated import NOON, recording, reply, say, shown, texts, until
from terminal import Terminal

from macllm.chats.records import StoredMessage
from macllm.chats.store import Store
from macllm.engine.client import EngineClient
from macllm.engine.recording import Recorder, ReplayEngine, read_recording
from macllm_tui.app import MacllmApp, Start
from macllm_tui.home import RecordedHome
from macllm_tui.pictures import steady
from macllm_tui.player import Player, Watched
from macllm_tui.replay import playable, replay
from macllm_tui.settings import Settings


def conversation_of(chats: Path) -> list[tuple[object, ...]]:
    """All that a reader sees of the chats in a file."""

    def seen(message: StoredMessage) -> tuple[object, ...]:
        return message.role, message.text, message.thought, message.state, message.metrics, message.seed

    store = Store.open(chats)
    try:
        return [tuple(map(seen, store.branch(chat.id))) for chat in store.chats()]
    finally:
        store.close()


async def test_what_is_recorded_of_a_real_engine_replays_to_the_same_conversation(tmp_path: Path) -> None:
    file, chats = tmp_path / "talk.jsonl", tmp_path / "recorded.db"
    start = Start(sampling={"temperature": 1.0, "max_tokens": 12, "seed": 5, "ignore_eos": True})
    engine = Recorder(EngineClient(), file)
    app = MacllmApp(
        engine, Settings(), start, chats=chats, home=RecordedHome(chatty.ref()), clock=lambda: NOON
    )
    async with app.run_test(size=(120, 40)) as pilot, asyncio.timeout(120):
        await app.begun.wait()
        await say(app, pilot, "Hello")
        await say(app, pilot, "And more")
        await pilot.press("alt+up", "r")
        await until(pilot, lambda: app.conversation.entries[-1].siblings == 2)
        await until(pilot, lambda: not app.conversation.replies)
        assert app.focused is app.chat_screen.prompt  # one can type on
        app.chat_screen.prompt.text = "/set max_tokens=100000"
        await pilot.press("enter")
        app.chat_screen.prompt.text = "A long one"
        await until(pilot, lambda: app.conversation.settings["max_tokens"] == 100_000)
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.reply and len(app.conversation.reply.message.text) > 20)
        await pilot.press("escape")
        await until(pilot, lambda: not app.conversation.replies)
        await until(pilot, lambda: "stopped" in shown(app))
        said = texts(app)
        await app.leave()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(said) == 6 and all(said)

    told, model = playable(read_recording(file), file)
    watched = Watched(ReplayEngine(told, pace="instant"))
    again = MacllmApp(
        watched, Settings(), chats=tmp_path / "replayed.db", home=RecordedHome(model), clock=lambda: NOON
    )
    async with again.run_test(size=(120, 40)) as pilot, asyncio.timeout(120):
        player = Player(again, pilot, watched, [one.request for one in told.exchanges])
        await player.play()
        await steady(again, pilot, player.busy)
        assert again.conversation.entries[3].siblings == 2
        await again.leave()
    assert conversation_of(tmp_path / "replayed.db") == conversation_of(chats)


class FullDisk(io.BytesIO):
    """A file that takes nothing more."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_that_the_recording_ends_early_is_said_in_the_app(tmp_path: Path) -> None:
    recorder = Recorder(
        ReplayEngine(recording(reply("Yes."), reply("Still.")), pace="instant"), tmp_path / "talk.jsonl"
    )
    app = MacllmApp(
        recorder, Settings(), chats=tmp_path / "chats.db", home=RecordedHome(chatty.ref()), clock=lambda: NOON
    )
    recorder.on_trouble = app.warn
    async with app.run_test(size=(120, 40)) as pilot:
        await app.begun.wait()
        await say(app, pilot, "Hello")
        recorder._file = FullDisk()
        await say(app, pilot, "Are you there?")
        assert texts(app)[-1] == "Still."
        told = [notice.message for notice in app._notifications]
        assert len(told) == 1 and "talk.jsonl: the recording ends early: No space left" in told[0]
        await app.leave()


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # short: the path of a socket has little room
        yield Path(folder)


def test_the_command_records_what_it_replays(place: Path, macllm_home: Path) -> None:
    file = place / "talk.jsonl"
    terminal = Terminal(
        place,
        *("chat", str(chatty.folder("endless")), "--record", str(file), "--max-tokens", "15"),
        MACLLM_HOME=str(macllm_home),
    )
    try:
        terminal.wait("endless")
        terminal.type("Hello")
        terminal.wait("Hello")
        terminal.press("Enter")
        screen = terminal.wait(r"[\d.]+ tok/s · 15 tok · TTFT")
        terminal.press("C-q")
        terminal.wait_for_end()
    finally:
        terminal.close()
    assert file.stat().st_mode & 0o777 == 0o600
    figures = re.findall(r"[\d.]+ tok/s · 15 tok · TTFT [\d.]+ s", screen)
    assert figures and figures[0] in replay(file, (120, 40), None)
