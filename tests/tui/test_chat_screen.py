"""What the chat screen shows and keeps: replies that fail, a full context, several chats, the terminal's size."""

import asyncio
from pathlib import Path

import pytest
from simulated import MODEL, READY, Gate, failure, opened, recording, reply, say, shown, texts, until

from macllm.chats.store import Store
from macllm.engine.events import Counted, Notice
from macllm.engine.protocol import Count, Generate, Load
from macllm.engine.recording import Exchange, Recording, ReplayEngine
from macllm_tui.app import Start
from macllm_tui.settings import Settings
from macllm_tui.widgets.banner import Banner
from macllm_tui.widgets.metrics import MetricsPanel
from macllm_tui.widgets.sidebar import ChatList, day_name
from macllm_tui.widgets.status import StatusLine


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


def stored(chats: Path) -> Store:
    return Store.open(chats)


async def test_what_was_said_is_there_on_the_next_start(chats: Path) -> None:
    async with opened(chats, reply("It is kept.")) as (app, pilot):
        await say(app, pilot, "Is it kept?")
    async with opened(chats) as (app, pilot):
        await until(pilot, lambda: "Is it kept?" in shown(app))
        await pilot.press("ctrl+b", "ctrl+b")
        app.query_one(ChatList).focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: texts(app) == ["Is it kept?", "It is kept."])
        await until(pilot, lambda: "50.0 tok/s" in shown(app))  # the figures too


async def test_a_dead_engine_leaves_the_reply_so_far_a_notice_and_a_restart(chats: Path) -> None:
    died = failure("the engine was killed by the system, most likely out of memory", "EngineDied", "so far")
    async with opened(chats, died, reply("Again.")) as (app, pilot):
        await say(app, pilot, "Go")
        assert texts(app) == ["Go", "so far"]
        assert app.conversation.branch[-1].state == "failed"
        screen = shown(app)
        assert "out of memory" in screen
        assert "f8" in screen
        app.engine.alive = False  # type: ignore[misc]  # as the real one is then
        await pilot.press("f8")
        await until(pilot, lambda: app.engine.alive and app.loading is None)
        assert not app.query_one(Banner).display
        await say(app, pilot, "Once more")
        assert texts(app)[-1] == "Again."
    kept = stored(chats)
    assert [message.text for message in kept.branch(kept.chats()[0].id)][1] == "so far"


async def test_what_the_engine_gives_notice_of_is_told(chats: Path) -> None:
    first, *rest = reply("It went on.")
    async with opened(chats, (first, (Notice("a kernel failed; plain MLX carries on"),), *rest)) as (
        app,
        pilot,
    ):
        await say(app, pilot, "Go")
        assert texts(app) == ["Go", "It went on."]
        assert [notice.message for notice in app._notifications] == ["a kernel failed; plain MLX carries on"]


@pytest.mark.parametrize(("key", "policy"), [("enter", "drop"), ("down", "summarise")])
async def test_a_prompt_that_does_not_fit_asks_and_then_goes_on(chats: Path, key: str, policy: str) -> None:
    full = failure("the prompt has 1200 tokens and the context of tiny holds 1000", "ContextError")
    rounds = [reply(f"Answer {number}.") for number in range(4)]
    replies = [
        *rounds,
        full,
        *([reply("A summary.")] if policy == "summarise" else []),
        reply("It fits now."),
    ]
    async with opened(chats, *replies) as (app, pilot):
        for number in range(4):
            await say(app, pilot, f"Question {number}")
        await say(app, pilot, "One too many")
        await until(pilot, lambda: type(app.screen).__name__ == "ContextChoice")
        assert "1200 tokens" in shown(app)
        await pilot.press(*([key, "enter"] if key != "enter" else ["enter"]))
        await until(pilot, lambda: texts(app)[-1:] == ["It fits now."])
        await until(pilot, lambda: not app.conversation.replies)
        chat = app.conversation.chat
        assert chat is not None
        assert len(texts(app)) == 10  # nothing is deleted, and the failed reply was written in its place
        if policy == "drop":
            assert chat.overflow == "drop"
        else:
            assert chat.summary == "A summary."
            assert chat.overflow == "ask"


async def test_what_cannot_fit_even_alone_is_told_once(chats: Path) -> None:
    full = failure("the prompt has 1200 tokens and the context of tiny holds 1000", "ContextError")
    async with opened(chats, full, reply("Short."), full, full, reply("Never asked for.")) as (app, pilot):
        await say(app, pilot, "Too long by itself")
        await until(pilot, lambda: "No older turn is there" in shown(app))
        assert type(app.screen).__name__ == "ChatScreen"
        await say(app, pilot, "Short")
        await say(app, pilot, "Too long as well")
        await until(pilot, lambda: type(app.screen).__name__ == "ContextChoice")
        await pilot.press("enter")  # leave out the oldest turns: it does not help
        await until(pilot, lambda: "Even without the older turns" in shown(app))
        assert not app.conversation.replies
        assert app.conversation.branch[-1].state == "failed"
        assert "Never asked for." not in texts(app)


async def test_two_apps_in_one_chat_each_go_on_from_what_they_show(chats: Path) -> None:
    gate = Gate()
    engine = ReplayEngine(recording(reply("Mine."), reply("Again.")), pace="recorded", sleep=gate.sleep)
    async with opened(chats, engine=engine) as (app, pilot):
        gate.hold()
        app.chat_screen.prompt.text = "Here"
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.replies)
        other = stored(chats)  # the other app, in the same chat
        chat = other.chats()[0].id
        theirs = other.add(chat, "user", "There", parent=None)
        other.add(chat, "assistant", "Theirs.", parent=theirs.id)
        gate.release()
        await until(pilot, lambda: not app.conversation.replies)
        await until(pilot, lambda: "50.0 tok/s" in shown(app))
        assert texts(app) == ["Here", "Mine."]
        await say(app, pilot, "More")
        assert texts(app) == ["Here", "Mine.", "More", "Again."]
        assert [one.text for one in app.conversation.branch] == texts(app)


@pytest.mark.parametrize(("temperature", "told"), [(0.0, True), (0.7, False)])
async def test_another_reply_that_cannot_differ_is_announced(
    chats: Path, temperature: float, told: bool
) -> None:
    async with opened(chats, reply("One."), reply("One.")) as (app, pilot):
        await app.conversation.change(sampling={"temperature": temperature})
        await say(app, pilot, "Go")
        await pilot.press("alt+up", "r")
        await until(pilot, lambda: "‹2/2›" in shown(app) and not app.conversation.replies)
        assert any("comes out the same" in notice.message for notice in app._notifications) == told


async def test_where_chats_cannot_be_kept_one_talks_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    chats = tmp_path / "file" / "chats.db"
    async with opened(chats, reply("Hello."), reply("Again.")) as (app, pilot):
        screen = " ".join(shown(app).split())
        assert "not kept" in screen and "chats.db" in screen
        await say(app, pilot, "Hi")
        await say(app, pilot, "More")
        assert texts(app) == ["Hi", "Hello.", "More", "Again."]
    assert (tmp_path / "file").read_text() == "no folder"


async def test_a_reply_goes_on_while_another_chat_is_looked_at(chats: Path) -> None:
    gate = Gate()
    engine = ReplayEngine(
        recording(reply("First answer."), reply("Second answer.")), pace="recorded", sleep=gate.sleep
    )
    async with opened(chats, engine=engine) as (app, pilot):
        gate.hold()
        app.chat_screen.prompt.text = "First"
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.replies)
        first = app.conversation.chat
        assert first is not None
        await app.chat_screen.new_chat()
        assert texts(app) == []
        gate.release()
        await until(pilot, lambda: not app.conversation.replies)
        assert texts(app) == []
        await app.chat_screen.open_chat(first.id)
        assert texts(app) == ["First", "First answer."]
        await until(pilot, lambda: "First answer." in shown(app))


async def test_a_chat_keeps_its_draft_and_its_settings(chats: Path) -> None:
    async with opened(chats, reply("One."), reply("Two.")) as (app, pilot):
        await say(app, pilot, "First")
        first = app.conversation.chat
        assert first is not None
        app.chat_screen.prompt.text = "/set temp=0.25"
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.settings == {"temperature": 0.25})
        app.chat_screen.prompt.text = "not sent yet"
        await app.chat_screen.new_chat()
        assert app.chat_screen.prompt.text == ""
        await app.chat_screen.open_chat(first.id)
        assert app.chat_screen.prompt.text == "not sent yet"
        assert app.conversation.settings == {"temperature": 0.25}


async def test_while_a_reply_is_written_enter_keeps_what_is_typed(chats: Path) -> None:
    gate = Gate()
    engine = ReplayEngine(recording(reply("A b c d.")), pace="recorded", sleep=gate.sleep)
    async with opened(chats, engine=engine) as (app, pilot):
        gate.hold()
        app.chat_screen.prompt.text = "First"
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.replies)
        await pilot.press(*"next", "enter")
        await pilot.pause()
        assert app.chat_screen.prompt.text == "next"
        gate.release()
        await until(pilot, lambda: not app.conversation.replies)
        assert texts(app) == ["First", "A b c d."]


async def test_the_seed_of_a_reply_is_kept_and_used(chats: Path) -> None:
    engine = ReplayEngine(recording(reply("One.")), pace="instant")
    asked: list[Generate] = []
    submit = engine.submit
    engine.submit = lambda request: (  # type: ignore[method-assign]
        asked.append(request) if isinstance(request, Generate) else None,
        submit(request),
    )[1]
    async with opened(chats, engine=engine, start=Start(sampling={"temperature": 0.9})) as (app, pilot):
        await say(app, pilot, "Hello")
        message = app.conversation.branch[-1]
        assert message.seed == asked[0].settings["seed"]
        assert asked[0].settings["temperature"] == 0.9
        assert message.model == READY.model
        assert message.model_hash == READY.hash


async def test_tokens_are_counted_as_one_types(chats: Path) -> None:
    async with opened(chats) as (app, pilot):
        await pilot.press(*"Hello there")
        await until(pilot, lambda: "3 tok" in shown(app))
        assert "23/1.0k" in shown(app) or "23/1000" in shown(app)


async def test_no_count_is_shown_while_the_model_is_not_loaded(chats: Path) -> None:
    exchanges = (Exchange(Load(MODEL), ((0.0, (READY,)),)),)
    unknown = Exchange(Count(MODEL, (), ""), ((0.0, (Counted(-1, -1),)),))
    engine = ReplayEngine(Recording(None, (*exchanges, unknown)), pace="instant")
    async with opened(chats, engine=engine) as (app, pilot):
        await pilot.press(*"Hello")
        await asyncio.sleep(0.4)
        await pilot.pause()
        assert "-1 tok" not in shown(app)


@pytest.mark.parametrize(
    ("size", "sidebar", "panel", "line"),
    [((120, 40), True, True, False), ((90, 30), True, False, True), ((60, 20), False, False, True)],
)
async def test_the_width_decides_what_is_beside_the_chat(
    chats: Path, size: tuple[int, int], sidebar: bool, panel: bool, line: bool
) -> None:
    async with opened(chats, reply("Yes."), size=size) as (app, pilot):
        await say(app, pilot, "Fits?")
        assert app.query_one(ChatList).display is sidebar
        assert app.query_one(MetricsPanel).display is panel
        assert app.query_one(StatusLine).display is line
        screen = shown(app)
        assert "Yes." in screen
        assert "50.0 tok/s" in screen
        assert "help" in screen
        assert "quit" in screen


async def test_settings_hide_the_sidebar_and_the_metrics(chats: Path) -> None:
    async with opened(chats, settings=Settings(sidebar=False, metrics=False)) as (app, _):
        assert not app.query_one(ChatList).display
        assert not app.query_one(MetricsPanel).display
        assert not app.query_one(StatusLine).display


async def test_without_any_model_the_welcome_is_shown_and_can_be_left(chats: Path) -> None:
    async with opened_welcome(chats) as (app, pilot):
        await until(pilot, lambda: type(app.screen).__name__ == "WelcomeScreen")
        await until(pilot, lambda: "More models" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "ChatScreen")
        assert "no model" in shown(app)
        await pilot.press(*"Hi", "enter")  # asks for a model first; what was typed stays
        await until(pilot, lambda: type(app.screen).__name__ == "ModelsScreen")
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "ChatScreen")
        assert app.chat_screen.prompt.text == "Hi"


def opened_welcome(chats: Path):
    from contextlib import asynccontextmanager

    from macllm_tui.app import MacllmApp
    from macllm_tui.home import RecordedHome

    @asynccontextmanager
    async def run():
        engine = ReplayEngine(recording(), pace="instant")
        app = MacllmApp(engine, Settings(), chats=chats, home=RecordedHome(None))
        async with app.run_test(size=(120, 40)) as pilot:
            yield app, pilot

    return run()


async def test_a_damaged_database_is_set_aside_and_said_so(chats: Path) -> None:
    chats.write_bytes(b"this is not a database" * 400)
    async with opened(chats, reply("Works.")) as (app, pilot):
        await until(pilot, lambda: "damaged" in shown(app))
        await say(app, pilot, "Does it work?")
        assert texts(app) == ["Does it work?", "Works."]
    assert list(chats.parent.glob("chats-damaged-*.db"))


async def test_a_setting_out_of_range_is_said_in_one_sentence(chats: Path) -> None:
    async with opened(chats) as (app, pilot):
        app.chat_screen.prompt.text = "/set temp=-3"
        await pilot.press("enter")
        await until(pilot, lambda: app._notifications)
        sentence = next(iter(app._notifications)).message
        assert "temp" in sentence
        assert app.conversation.settings == {}


def test_days_have_names() -> None:
    from datetime import date

    today = date(2026, 1, 15)
    assert day_name("2026-01-15T12:00:00+00:00", today) == "today"
    assert day_name("2026-01-14T12:00:00+00:00", today) == "yesterday"
    assert day_name("2026-01-10T12:00:00+00:00", today) == "last 7 days"
    assert day_name("2026-01-01T12:00:00+00:00", today) == "January"
    assert day_name("2025-11-01T12:00:00+00:00", today) == "November 2025"
