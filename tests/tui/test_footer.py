"""The bottom line: the keys of the place where one is, as many as fit, help and quit always."""

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from macllm_tui.actions import ACTIONS, BY_ID
from macllm_tui.bindings import bindings, keymap
from macllm_tui.settings import Settings
from macllm_tui.widgets.footer import Footer, hints

TABLE = keymap({}).keys


@pytest.mark.parametrize("place", ["prompt", "message"])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 400])
def test_as_many_as_fit_and_always_help_and_quit(place, width: int) -> None:
    shown = hints(place, TABLE, width)
    line = "  ".join(f"{hint.key} {hint.title}" for hint in shown)
    assert cell_len(line) <= max(width, len("f1 help  ^q quit"))
    assert [hint.id for hint in shown[-2:]] == ["help", "quit"]


def test_a_wide_one_shows_all_of_the_table() -> None:
    asked = {action.id for action in ACTIONS if action.footer}
    assert {hint.id for hint in hints("prompt", TABLE, 400)} == asked | {"help", "quit"}
    on_message = {action.id for action in ACTIONS if action.place == "message"}
    assert {hint.id for hint in hints("message", TABLE, 400)} == on_message | {"stop", "help", "quit"}


def test_keys_are_those_in_force() -> None:
    moved = keymap({"new": "ctrl+_", "model": "", "help": ""}).keys
    shown = {hint.id: hint.key for hint in hints("prompt", moved, 400)}
    assert shown["new"] == "^_" and "model" not in shown and shown["help"] == "/help"


class Place(Widget, can_focus=True):
    """Something to focus."""


class Message(Place):
    BINDINGS = bindings("message")


class Talk(Screen[None]):
    BINDINGS = bindings("chat")

    def compose(self) -> ComposeResult:
        yield Place()
        yield Message()
        yield Footer()

    def action_do(self, action: str) -> None:
        self.app.done.append(action)


class Talks(App[None]):
    CSS = "Place { height: 1; }"

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.done: list[str] = []
        self.set_keymap(keymap(settings.keys).overrides)

    def get_default_screen(self) -> Screen[None]:
        return Talk()


def line_of(app: App[None]) -> str:
    return app.screen.query_one(Footer).render().plain


async def test_it_follows_the_focus() -> None:
    app = Talks(Settings())
    async with app.run_test(size=(120, 10)) as pilot:
        await pilot.pause()
        assert "⏎ send" in line_of(app) and "e edit" not in line_of(app)
        app.screen.query_one(Message).focus()
        await pilot.pause()
        assert "e edit" in line_of(app) and "[ ‹" in line_of(app) and "send" not in line_of(app)


async def test_it_follows_the_focus_with_moved_keys() -> None:
    app = Talks(Settings(keys={"edit": "w", "quit": "f10"}))
    async with app.run_test(size=(120, 10)) as pilot:
        app.screen.query_one(Message).focus()
        await pilot.pause()
        assert "w edit" in line_of(app) and line_of(app).endswith("f10 quit")


async def test_a_click_does_what_the_key_does() -> None:
    app = Talks(Settings())
    async with app.run_test(size=(120, 10)) as pilot:
        await pilot.pause()
        for id_ in ("send", "new", "help", "quit"):
            title = BY_ID[id_].title
            await pilot.click(Footer, offset=(line_of(app).index(title) + 2, 0))
        await pilot.click(Footer, offset=(118, 0))
        assert app.done == ["send", "new", "help", "quit"]
