"""The app on its real engine process with a tiny model: killed in the middle, switched, restarted."""

import os
import signal
from pathlib import Path

import chatty
import random_adapters
from simulated import opened, shown, texts, until

from macllm.engine.client import EngineClient
from macllm_tui.app import Start
from macllm_tui.widgets.banner import Banner

ENDLESS = {"temperature": 0.0, "ignore_eos": True}


async def test_the_engine_killed_in_the_middle_of_a_reply(tmp_path: Path) -> None:
    engine = EngineClient()
    start = Start(sampling=ENDLESS)
    async with opened(tmp_path / "chats.db", engine=engine, model=chatty.ref("endless"), start=start) as (
        app,
        pilot,
    ):
        app.chat_screen.prompt.text = "Write without end."
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.replies)
        running = next(iter(app.conversation.replies.values()))
        await until(pilot, lambda: len(running.message.text) > 20)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(pilot, lambda: not app.conversation.replies)

        message = app.conversation.branch[-1]
        assert message.state == "failed"
        assert len(message.text) > 20
        assert (await app.store.message(message.id)).text == message.text
        banner = app.query_one(Banner)
        assert banner.display
        assert "killed" in banner.text
        assert "f8" in shown(app)

        await pilot.press("f8")
        await until(pilot, lambda: engine.alive and app.loading is None and not banner.display)
        app.chat_screen.prompt.text = "/set max-tokens=5"
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.settings.get("max_tokens") == 5)
        app.chat_screen.prompt.text = "Again."
        await pilot.press("enter")
        await until(pilot, lambda: len(texts(app)) == 4 and not app.conversation.replies)
        assert app.conversation.branch[-1].state == "length"
        await engine.close()


async def test_stop_while_the_prompt_is_read_keeps_the_chat_usable(tmp_path: Path) -> None:
    engine = EngineClient()
    start = Start(sampling={**ENDLESS, "max_tokens": 3})
    async with opened(tmp_path / "chats.db", engine=engine, model=chatty.ref("endless"), start=start) as (
        app,
        pilot,
    ):
        app.chat_screen.prompt.text = "word " * 20_000
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.replies)
        await pilot.press("escape")
        await until(pilot, lambda: not app.conversation.replies)
        assert app.conversation.branch[-1].state == "stopped"
        await app.chat_screen.new_chat()
        app.chat_screen.prompt.text = "Short."
        await pilot.press("enter")
        await until(pilot, lambda: len(texts(app)) == 2 and not app.conversation.replies)
        assert app.conversation.branch[-1].state == "length"
        await engine.close()


async def test_a_load_can_be_stopped_and_tried_again(tmp_path: Path) -> None:
    engine = EngineClient()
    async with opened(tmp_path / "chats.db", engine=engine, model=chatty.ref("endless")) as (app, pilot):
        app.run_worker(app.use_model(chatty.ref("deep")), group="load")
        await until(pilot, lambda: app.loading is not None)
        await pilot.press("escape")
        await until(pilot, lambda: app.loading is None)
        await app.use_model(chatty.ref("endless"))
        assert app.conversation.ready is not None
        assert app.conversation.ready.model == "endless"
        await engine.close()


async def test_quitting_in_the_middle_keeps_what_came(tmp_path: Path) -> None:
    engine = EngineClient()
    chats = tmp_path / "chats.db"
    model = chatty.ref("endless")
    async with opened(chats, engine=engine, model=model, start=Start(sampling=ENDLESS)) as (app, pilot):
        app.chat_screen.prompt.text = "Write without end."
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.replies)
        running = next(iter(app.conversation.replies.values()))
        await until(pilot, lambda: len(running.message.text) > 20)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not engine.alive)
    from macllm.chats.store import Store

    store = Store.open(chats)
    kept = store.branch(store.chats()[0].id)[-1]
    assert kept.state == "stopped"
    assert len(kept.text) > 20


async def test_an_adapter_is_taken_switched_and_refused_while_one_talks(tmp_path: Path) -> None:
    base = chatty.folder("endless")
    one = random_adapters.written(base, tmp_path / "one", 1)
    poems = random_adapters.written(base, tmp_path / "poems", 2)
    stranger = random_adapters.written(chatty.folder("big"), tmp_path / "stranger", 3)
    engine = EngineClient()
    start = Start(sampling={**ENDLESS, "max_tokens": 5}, adapter=str(one))
    async with opened(tmp_path / "chats.db", engine=engine, model=chatty.ref("endless"), start=start) as (
        app,
        pilot,
    ):

        async def enter(text: str) -> None:
            app.chat_screen.prompt.text = text
            await pilot.press("enter")

        await until(pilot, lambda: "endless + one" in shown(app))
        await enter("Hello")
        await until(pilot, lambda: len(texts(app)) == 2 and not app.conversation.replies)
        said = [texts(app)[1]]
        for asked, name in ((poems, "endless + poems"), (stranger, "endless + poems"), ("none", "endless")):
            await enter(f"/adapter {asked}")
            await until(pilot, lambda: not app.chat_screen.prompt.text)
            if asked == stranger:
                await until(pilot, lambda: "another base" in shown(app))
            await until(pilot, lambda name=name: app.loading is None and f"{name} ──" in shown(app))
            await enter("/regenerate")
            await until(pilot, lambda: not app.conversation.replies)
            said.append(texts(app)[1])
        assert said[1] == said[2]
        assert len(set(said)) == 3
        await engine.close()
