"""What is done while something else is still under way: keys faster than the store, chats that vanish, a full disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from simulated import Gate, opened, recording, reply, say, shown, texts, until
from textual.pilot import Pilot

from macllm.chats.store import Store
from macllm.engine.recording import ReplayEngine
from macllm_tui.app import MacllmApp
from macllm_tui.widgets.banner import Banner


@asynccontextmanager
async def writing(tmp_path: Path) -> AsyncIterator[tuple[MacllmApp, Pilot[None], Gate]]:
    """The app in the middle of a reply that waits at the gate."""
    gate = Gate()
    engine = ReplayEngine(recording(reply("one two three four"), reply("Again.")), sleep=gate.sleep)
    async with opened(tmp_path / "chats.db", engine=engine) as (app, pilot):
        gate.hold()
        app.chat_screen.prompt.text = "Go"
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.reply is not None)
        yield app, pilot, gate


async def finished(app: MacllmApp, pilot: Pilot[None]) -> None:
    """Everything that was begun has come to its end."""
    await until(pilot, lambda: all(worker.is_finished for worker in app.workers))


async def test_two_messages_at_once_are_one_chat(tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db", reply("A."), reply("B.")) as (app, pilot):
        for text in ("one", "two"):
            app.chat_screen.prompt.text = text
            app.chat_screen.prompt.action_send()
        await finished(app, pilot)
        assert len(await app.store.chats()) == 1
        assert texts(app) == ["one", "A."]
        assert app.chat_screen.prompt.text == "two", "what could not be sent is given back"


async def test_a_key_pressed_twice_writes_one_reply(tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db", reply("A."), reply("B."), reply("C.")) as (app, pilot):
        await say(app, pilot, "Hi")
        app.chat_screen.do("regenerate")
        app.chat_screen.do("regenerate")
        await finished(app, pilot)
        assert app.conversation.entries[-1].siblings == 2
        assert texts(app) == ["Hi", "B."]


async def test_a_chat_opened_right_after_sending_shows_nothing_of_the_other(tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db", reply("First."), reply("Second.")) as (app, pilot):
        await say(app, pilot, "One")
        first = app.conversation.chat
        assert first is not None
        await app.chat_screen.new_chat()
        app.chat_screen.prompt.text = "Two"
        app.chat_screen.prompt.action_send()
        while app.conversation.chat is None:  # its first message is on the way into the store
            await asyncio.sleep(0)
        app.chat_screen.run(app.chat_screen.open_chat(first.id))
        await finished(app, pilot)
        assert texts(app) == ["One", "First."]
        assert [entry.message.text for entry in app.chat_screen.transcript.entries] == ["One", "First."]
        both = {chat.id: await app.store.branch(chat.id) for chat in await app.store.chats()}
        assert sorted([one.text for one in branch] for branch in both.values()) == [
            ["One", "First."],
            ["Two", "Second."],
        ]


async def test_a_chat_deleted_while_its_reply_is_written_ends_the_reply(tmp_path: Path) -> None:
    async with writing(tmp_path) as (app, pilot, gate):
        app.chat_screen.do("delete")
        await until(pilot, lambda: type(app.screen).__name__ == "Confirm")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.chat is None)
        gate.release()
        await finished(app, pilot)
        assert not app.conversation.replies and not app.query_one(Banner).display
        await say(app, pilot, "And now?")
        assert texts(app) == ["And now?", "Again."]


async def test_the_open_chat_deleted_in_the_list_of_chats_is_left(tmp_path: Path) -> None:
    async with writing(tmp_path) as (app, pilot, gate):
        app.chat_screen.do("search")
        await until(pilot, lambda: type(app.screen).__name__ == "ChatSearch" and "Go" in shown(app))
        await pilot.press("down", "d")
        await until(pilot, lambda: type(app.screen).__name__ == "Confirm")
        await pilot.press("enter")
        await until(pilot, lambda: type(app.screen).__name__ == "ChatSearch")
        await pilot.press("escape")
        await until(pilot, lambda: app.conversation.chat is None)
        gate.release()
        await finished(app, pilot)
        assert not app.conversation.replies
        await say(app, pilot, "And now?")
        assert texts(app) == ["And now?", "Again."]


async def test_a_reply_that_cannot_be_saved_is_shown_to_its_end_and_told(tmp_path: Path) -> None:
    async with writing(tmp_path) as (app, pilot, gate):
        await app.store.call(_refuse_writing, True)
        gate.release()
        await until(pilot, lambda: not app.conversation.replies)
        await finished(app, pilot)
        assert "chats.db" in app.query_one(Banner).text
        await app.store.call(_refuse_writing, False)
        await say(app, pilot, "And now?")
        assert texts(app)[-2:] == ["And now?", "Again."]


def _refuse_writing(store: Store, on: bool) -> None:
    """As a disk that is full, or became read-only."""
    store._connection.execute(f"PRAGMA query_only = {'ON' if on else 'OFF'}")
