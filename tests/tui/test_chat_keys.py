"""Every key of the chat screen does what the table says; one test an action, and none is left out."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from simulated import READY, Gate, opened, recording, reply, say, shown, texts, until
from textual.pilot import Pilot

from macllm.chats.store import Store
from macllm.engine.recording import ReplayEngine
from macllm_tui.actions import ACTIONS, BY_ID
from macllm_tui.app import MacllmApp
from macllm_tui.widgets.banner import Banner
from macllm_tui.widgets.find_bar import FindBar
from macllm_tui.widgets.metrics import MetricsPanel
from macllm_tui.widgets.sidebar import ChatList

REPLIES = tuple(reply(f"Answer {number} of the tiny model.") for number in range(1, 6))
CODE = reply("Look:\n\n```python\nx = 1\n```\n\nand\n\n```\ny\n```")

Check = Callable[[MacllmApp, Pilot[None]], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def action(name: str) -> Callable[[Check], Check]:
    """Marks a function as the check of an action."""

    def keep(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return keep


def key(name: str) -> str:
    """The first key of an action."""
    return BY_ID[name].key.split(",")[0]


@pytest.mark.parametrize("name", [action.id for action in ACTIONS if action.key])
async def test_key(name: str, tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db", *REPLIES) as (app, pilot):
        await CHECKS[name](app, pilot)


def type_of(app: MacllmApp) -> str:
    """The screen on top."""
    return type(app.screen).__name__


@action("send")
async def _send(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(*"Hello", "enter")
    await until(pilot, lambda: texts(app) == ["Hello", "Answer 1 of the tiny model."])
    await until(pilot, lambda: "50.0 tok/s" in shown(app))
    assert app.chat_screen.prompt.text == ""


@action("newline")
async def _newline(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press("a", key("newline"), "b")
    assert app.chat_screen.prompt.text == "a\nb"
    assert texts(app) == []


@action("stop")
async def _stop(app: MacllmApp, pilot: Pilot[None]) -> None:
    gate = Gate()
    app.conversation._engine = app.engine = engine = ReplayEngine(
        recording(reply("one two three four five six")), pace="recorded", sleep=gate.sleep
    )
    await engine.start()
    gate.hold()
    app.chat_screen.prompt.text = "Count."
    await pilot.press("enter")
    await until(pilot, lambda: app.conversation.replies)
    await pilot.press("escape")
    await asyncio.sleep(0)
    gate.release()
    await until(pilot, lambda: not app.conversation.replies)
    assert app.conversation.branch[-1].state == "stopped"
    await until(pilot, lambda: "stopped" in shown(app))


@action("edit_last")
async def _edit_last(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "First")
    await pilot.press("up")
    await until(pilot, lambda: app.chat_screen.prompt.text == "First")
    assert app.query_one(Banner).display
    await pilot.press("!", "enter")
    await until(pilot, lambda: texts(app) == ["First!", "Answer 2 of the tiny model."])
    assert "‹2/2›" in shown(app)


@action("prompt_history")
async def _history(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "An earlier prompt")
    await pilot.press(key("prompt_history"))
    await until(pilot, lambda: type_of(app) == "PromptHistory" and "An earlier prompt" in shown(app))
    await pilot.press("enter")
    await until(pilot, lambda: app.chat_screen.prompt.text == "An earlier prompt")


@action("editor")
async def _editor(app: MacllmApp, pilot: Pilot[None]) -> None:
    # there is no terminal to hand over here: tests/tui/test_prompt.py has the editor itself
    await pilot.press(key("editor"))
    await until(pilot, lambda: app._notifications or "edited" in app.chat_screen.prompt.text)


@action("new")
async def _new(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await pilot.press(key("new"))
    await until(pilot, lambda: texts(app) == [])
    assert app.conversation.chat is None
    assert len(await app.store.chats()) == 1


@action("search")
async def _search(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "About lighthouses")
    await app.chat_screen.new_chat()
    await pilot.press(key("search"))
    await until(pilot, lambda: type_of(app) == "ChatSearch")
    await pilot.press(*"lighth")
    await until(pilot, lambda: "lighthouses" in shown(app))
    await pilot.press("enter")
    await until(pilot, lambda: texts(app)[:1] == ["About lighthouses"])


@action("find")
async def _find(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Where is Waldo? Waldo is here.")
    await pilot.press(key("find"), *"waldo")
    await until(pilot, lambda: app.query_one(FindBar).display and "of 2" in shown(app))
    await pilot.press("escape")
    await until(pilot, lambda: not app.query_one(FindBar).display)
    assert app.chat_screen.prompt.has_focus


@action("palette")
async def _palette(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(key("palette"))
    await until(pilot, lambda: type_of(app) == "Palette")


@action("model")
async def _model(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(key("model"))
    await until(pilot, lambda: type_of(app) == "ModelsScreen")
    await pilot.press("escape")
    await until(pilot, lambda: type_of(app) == "ChatScreen")


@action("sampler")
async def _sampler(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(key("sampler"))
    await until(pilot, lambda: type_of(app) == "SamplerDrawer")
    assert "0.5" in shown(app)  # the model's own temperature
    await pilot.press("escape")
    await until(pilot, lambda: type_of(app) == "ChatScreen")
    assert app.conversation.settings == {}


@action("system")
async def _system(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(key("system"))
    await until(pilot, lambda: type_of(app) == "SystemDrawer")
    await pilot.press("escape")
    await until(pilot, lambda: type_of(app) == "ChatScreen")


@action("thinking")
async def _thinking(app: MacllmApp, pilot: Pilot[None]) -> None:
    app.conversation._engine = engine = ReplayEngine(
        recording(reply("Yes.", thought="Is it so? It is.")), pace="instant"
    )
    await engine.start()
    await say(app, pilot, "Is it?")
    assert "Is it so?" not in shown(app)
    await pilot.press(key("thinking"))
    await until(pilot, lambda: "Is it so?" in shown(app))


@action("sidebar")
async def _sidebar(app: MacllmApp, pilot: Pilot[None]) -> None:
    before = app.query_one(ChatList).display
    await pilot.press(key("sidebar"))
    await until(pilot, lambda: app.query_one(ChatList).display is not before)


@action("help")
async def _help(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(key("help"))
    await until(pilot, lambda: type_of(app) == "HelpScreen")
    await pilot.press("escape")
    await until(pilot, lambda: type_of(app) == "ChatScreen")


@action("finetune")
async def _finetune(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(key("finetune"))
    await until(pilot, lambda: type_of(app) == "FineTuneScreen")
    await pilot.press("escape")
    await until(pilot, lambda: type_of(app) == "ChatScreen")


@action("metrics")
async def _metrics(app: MacllmApp, pilot: Pilot[None]) -> None:
    assert app.query_one(MetricsPanel).display
    await pilot.press(key("metrics"))
    await until(pilot, lambda: not app.query_one(MetricsPanel).display)
    assert not app.settings.metrics


@action("compare")
async def _compare(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(*"Hi", key("compare"))
    await until(pilot, lambda: type_of(app) == "CompareScreen")
    assert "Hi" in shown(app)
    await pilot.press("escape")
    await until(pilot, lambda: type_of(app) == "ChatScreen")


@action("restart")
async def _restart(app: MacllmApp, pilot: Pilot[None]) -> None:
    engine = app.engine
    assert isinstance(engine, ReplayEngine)
    engine.alive, engine.problem = False, "the engine was killed by the system"
    await until(pilot, lambda: "killed by the system" in shown(app))
    await pilot.press(key("restart"))
    await until(pilot, lambda: engine.alive and not app.query_one(Banner).display)
    assert app.conversation.ready == READY


@action("quit")
async def _quit(app: MacllmApp, pilot: Pilot[None]) -> None:
    await pilot.press(key("quit"))
    await until(pilot, lambda: not app.is_running or app._exit)


@action("previous_message")
async def _previous(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await pilot.press("alt+up")
    await until(pilot, lambda: app.chat_screen.transcript.chosen is not None)
    assert app.chat_screen.transcript.chosen.message.role == "assistant"
    await pilot.press("alt+up")
    assert app.chat_screen.transcript.chosen.message.role == "user"
    await pilot.press("escape")
    await until(pilot, lambda: app.chat_screen.transcript.chosen is None)
    assert app.chat_screen.prompt.has_focus


@action("next_message")
async def _next(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await pilot.press("alt+up", "alt+up", "alt+down")
    await until(pilot, lambda: app.chat_screen.transcript.chosen is not None)
    assert app.chat_screen.transcript.chosen.message.role == "assistant"


async def _read_back(app: MacllmApp, pilot: Pilot[None]) -> float:
    """A page up, from the prompt with what is being typed in it; where that leads."""
    for number in range(12):
        await say(app, pilot, f"Question {number}")
    transcript = app.chat_screen.transcript
    await until(pilot, lambda: transcript.max_scroll_y > 0 and transcript.scroll_y == transcript.max_scroll_y)
    app.chat_screen.prompt.text = "being typed"
    end = transcript.scroll_y
    await pilot.press("pageup")
    await until(pilot, lambda: transcript.scroll_y < end)
    assert app.chat_screen.prompt.has_focus and app.chat_screen.prompt.text == "being typed"
    return end


@action("page_up")
async def _page_up(app: MacllmApp, pilot: Pilot[None]) -> None:
    await _read_back(app, pilot)
    assert not app.chat_screen.transcript.following


@action("page_down")
async def _page_down(app: MacllmApp, pilot: Pilot[None]) -> None:
    await _read_back(app, pilot)
    await pilot.press("pagedown", "pagedown")
    await until(pilot, lambda: app.chat_screen.transcript.following)


async def test_the_list_of_chats_pages_itself(tmp_path: Path) -> None:
    chats = tmp_path / "chats.db"
    store = Store.open(chats)
    for number in range(60):
        store.create(title=f"Chat {number}")
    store.close()
    async with opened(chats, size=(120, 20)) as (app, pilot):
        shown_chats = app.query_one(ChatList)
        await until(pilot, lambda: shown_chats.option_count > 60)
        shown_chats.focus()
        await pilot.press("home", "pagedown")
        await until(pilot, lambda: (shown_chats.highlighted or 0) > 5)
        await pilot.press("pageup")
        await until(pilot, lambda: shown_chats.highlighted == 1)  # under the name of its day


@action("edit")
async def _edit(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "First")
    await say(app, pilot, "Second")
    await pilot.press("alt+up", "alt+up", "alt+up", "alt+up", "e")
    await until(pilot, lambda: app.chat_screen.prompt.text == "First")
    await pilot.press("!", "enter")
    await until(pilot, lambda: texts(app) == ["First!", "Answer 3 of the tiny model."])


@action("regenerate")
async def _regenerate(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await pilot.press("alt+up", "r")
    await until(pilot, lambda: texts(app) == ["Hello", "Answer 2 of the tiny model."])
    await until(pilot, lambda: "‹2/2›" in shown(app))


@action("previous_sibling")
async def _previous_sibling(app: MacllmApp, pilot: Pilot[None]) -> None:
    await _regenerate(app, pilot)
    await until(pilot, lambda: not app.conversation.replies)
    await pilot.press("alt+up", "left_square_bracket")
    await until(pilot, lambda: texts(app) == ["Hello", "Answer 1 of the tiny model."])


@action("next_sibling")
async def _next_sibling(app: MacllmApp, pilot: Pilot[None]) -> None:
    await _previous_sibling(app, pilot)
    await pilot.press("right_square_bracket")  # the message stays chosen
    await until(pilot, lambda: texts(app) == ["Hello", "Answer 2 of the tiny model."])


@action("continue")
async def _continue(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await pilot.press("alt+up", "i")
    await until(pilot, lambda: app.chat_screen.prompt.text == "Answer 1 of the tiny model.")
    app.chat_screen.prompt.text = "Well:"
    await pilot.press("enter")
    await until(pilot, lambda: texts(app) == ["Hello", "Well:Answer 2 of the tiny model."])


@action("copy")
async def _copy(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await pilot.press("alt+up", "c")
    await until(pilot, lambda: app.clipboard == "Answer 1 of the tiny model.")


@action("copy_code")
async def _copy_code(app: MacllmApp, pilot: Pilot[None]) -> None:
    app.conversation._engine = engine = ReplayEngine(recording(CODE), pace="instant")
    await engine.start()
    await say(app, pilot, "Show me")
    await pilot.press("alt+up", "y")
    await until(pilot, lambda: app.clipboard == "x = 1\n\ny")


@action("fork")
async def _fork(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await say(app, pilot, "More")
    first = app.conversation.chat
    await pilot.press("alt+up", "alt+up", "alt+up", "f")
    await until(pilot, lambda: app.conversation.chat != first and len(texts(app)) == 2)
    assert len(await app.store.chats()) == 2


@action("export")
async def _export(app: MacllmApp, pilot: Pilot[None]) -> None:
    await say(app, pilot, "Hello")
    await pilot.press("alt+up", "x")
    await until(pilot, lambda: type_of(app) == "Choose")
    await pilot.press("escape")
    await until(pilot, lambda: type_of(app) == "ChatScreen")


def test_every_key_has_its_test() -> None:
    assert set(CHECKS) == {action.id for action in ACTIONS if action.key}
