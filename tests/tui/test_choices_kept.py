"""What a person chose of the app itself: it holds at once, is kept for the next start, and names the keys in force."""

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

import chatty
import pytest
from simulated import MODEL, Gate, metrics, opened, recording, reply, say, shown, until
from textual.binding import Binding
from textual.dom import DOMNode
from textual.pilot import Pilot

import macllm_tui
from macllm.engine.client import EngineClient
from macllm.engine.events import Done, Prefill, Stats, Token
from macllm.engine.protocol import Generate
from macllm.engine.recording import Exchange, ReplayEngine
from macllm.errors import InputError
from macllm_tui import settings as settings_file
from macllm_tui.actions import ACTIONS
from macllm_tui.app import MacllmApp
from macllm_tui.bindings import key_names
from macllm_tui.home import RecordedHome, UserHome
from macllm_tui.model_refs import resolve
from macllm_tui.screens.help_places import place_keys
from macllm_tui.settings import Settings
from macllm_tui.widgets.sidebar import ChatList


class KeepingHome(RecordedHome):
    """A recording's model, and the person's own settings."""

    def save(self, settings: Settings) -> None:
        UserHome().save(settings)


async def begun(app: MacllmApp, pilot: Pilot[None]) -> None:
    await app.begun.wait()
    await pilot.pause()


def keeping(tmp_path: Path) -> MacllmApp:
    engine = ReplayEngine(recording(reply("Done.", thought="It is so.")), pace="instant")
    return MacllmApp(
        engine, settings_file.load().settings, chats=tmp_path / "chats.db", home=KeepingHome(MODEL)
    )


async def test_what_is_shown_and_folded_is_as_it_was_on_the_next_start(tmp_path: Path) -> None:
    app = keeping(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await begun(app, pilot)
        await pilot.press("ctrl+t", "ctrl+b", "f4")
        app.chat_screen.do("tint")
        await until(pilot, lambda: app.settings.tint)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app._store is None)
    kept = settings_file.load().settings
    assert (kept.thinking, kept.sidebar, kept.metrics, kept.tint) == (True, False, False, True)
    app = keeping(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await begun(app, pilot)
        assert not app.chat_screen.query_one(ChatList).display
        await say(app, pilot, "Why?")
        await until(pilot, lambda: "It is so." in shown(app))
        await app.leave()


async def test_a_narrow_terminal_does_not_decide_for_a_wide_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db", size=(70, 24)) as (app, pilot):
        await pilot.press("ctrl+b")
        assert app.chat_screen.query_one(ChatList).display
        await pilot.press("ctrl+b")
        assert not app.chat_screen.query_one(ChatList).display
        assert app.settings.sidebar


@pytest.mark.parametrize("tint", [False, True])
async def test_drafted_words_are_tinted_where_that_is_wanted(tmp_path: Path, tint: bool) -> None:
    figures = metrics(2)
    batches = (
        (Prefill(20, 20, 0),),
        (Token(1, "plain "), Token(2, "foreseen", drafted=True)),
        (Stats(figures, (20.0,)),),
        (Done("stop", "", figures),),
    )
    engine = ReplayEngine(recording(batches), pace="instant")
    fed: list[object] = []
    async with opened(tmp_path / "chats.db", engine=engine, settings=Settings(tint=tint)) as (app, pilot):
        feed = app.chat_screen.transcript.feed

        def listen(text: str, thought: str = "", drafted=()) -> None:
            fed.extend(drafted)
            feed(text, thought, drafted)

        app.chat_screen.transcript.feed = listen  # type: ignore[method-assign]
        await say(app, pilot, "Hello")
    assert bool(fed) == tint


async def test_the_context_fills_before_ones_eyes(tmp_path: Path) -> None:
    gate = Gate()
    batches = (
        (Prefill(20, 20, 0),),
        (Token(1, "much "), Stats(metrics(480), (20.0,))),
        (Done("stop", "", metrics(481)),),
    )
    held = Exchange(Generate(MODEL, ()), ((0.0, batches[0]), (0.0, batches[1]), (9.0, batches[2])))
    said = recording()
    engine = ReplayEngine(replace(said, exchanges=(*said.exchanges, held)), pace="recorded", sleep=gate.sleep)
    async with opened(tmp_path / "chats.db", engine=engine) as (app, pilot):
        app.chat_screen.prompt.text = "Hello"
        gate.hold()
        await pilot.press("enter")
        await until(pilot, lambda: " 500/1.0k" in shown(app))
        assert app.conversation.replies
        gate.release()
        await until(pilot, lambda: not app.conversation.replies)


async def test_remapped_keys_are_the_ones_that_are_named(tmp_path: Path) -> None:
    keys = {"help": "f10", "stop": "f9", "send": "enter", "previous_message": "alt+k"}
    async with opened(tmp_path / "chats.db", settings=Settings(keys=keys)) as (app, pilot):
        await until(pilot, lambda: "f10 shows all keys" in shown(app))
        app.chat_screen.begin_edit("words", editing="m")
        await until(pilot, lambda: "branch of its own.  f9" in shown(app))
        assert "hides this" not in shown(app)
        await pilot.press("f10")
        await until(pilot, lambda: type(app.screen).__name__ == "HelpScreen")
        app.screen.query_one("Input").value = "alt+k"
        await until(pilot, lambda: "choose the message before" in shown(app))
        app.screen.query_one("Input").value = "reply"
        await until(pilot, lambda: "alt+k chooses one" in shown(app))


def test_sentences_from_where_no_keys_are_known_name_the_command() -> None:
    with pytest.raises(InputError, match="/model"):
        resolve("no-such-model")


async def test_help_opens_on_other_screens_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db") as (app, pilot):
        await pilot.press("f5")
        await until(pilot, lambda: type(app.screen).__name__ == "CompareScreen")
        await pilot.press("f1")
        await until(pilot, lambda: type(app.screen).__name__ == "HelpScreen")
        await pilot.press("f1")
        await until(pilot, lambda: type(app.screen).__name__ == "CompareScreen")


def test_help_lists_every_binding_of_every_screen() -> None:
    listed = {row.keys for row in place_keys()}
    listed |= {key_names(action.key) for action in ACTIONS if action.key}
    missing = []
    for module in pkgutil.walk_packages(macllm_tui.__path__, "macllm_tui."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, DOMNode) and kind.__module__ == module.name:
                for binding in vars(kind).get("BINDINGS", ()):
                    assert isinstance(binding, Binding), kind
                    unbound = binding.key.startswith("unbound-")
                    if not unbound and not binding.system and key_names(binding.key) not in listed:
                        missing.append((kind.__name__, binding.key))
    assert missing == []


async def test_a_model_chosen_while_another_loads_takes_its_place(tmp_path: Path) -> None:
    engine = EngineClient()
    async with opened(tmp_path / "chats.db", engine=engine, model=chatty.ref("short")) as (app, pilot):
        first = app.run_worker(app.use_model(chatty.ref("deep")), group="load")
        await until(pilot, lambda: app.loading is not None)
        await app.use_model(chatty.ref("endless"))
        await first.wait()
        assert app.loading is None
        assert app.conversation.ready is not None and app.conversation.ready.model == "endless"
        await engine.close()
