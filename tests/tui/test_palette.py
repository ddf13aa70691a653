"""The palette: every command by name with its key in force, the models used last, the colours; and it does them."""

import time

import pytest
from textual.app import App, ComposeResult
from textual.command import CommandInput, CommandList, CommandPalette, SearchIcon
from textual.content import Content
from textual.screen import Screen
from textual.widgets import TextArea

from macllm_tui import themes
from macllm_tui.actions import ACTIONS
from macllm_tui.bindings import key_names, keymap
from macllm_tui.palette import commands, open_palette
from macllm_tui.settings import Settings

TABLE = keymap({}).keys


def test_every_action_is_there_with_its_key_and_command() -> None:
    made = {command.action: command for command in commands(TABLE) if not command.argument}
    left_out = {"send", "newline", "edit_last", "palette"}  # of the keyboard alone
    assert set(made) == {action.id for action in ACTIONS} - left_out
    for action in ACTIONS:
        if action.id in made:
            command = made[action.id]
            assert command.words.lower() == action.help.lower()
            assert key_names(action.key) in command.help and action.slash in command.help


def test_moved_keys_are_shown() -> None:
    moved = keymap({"new": "f9", "model": ""}).keys
    made = {command.action: command.help for command in commands(moved)}
    assert made["new"] == "f9   /new" and made["model"] == "/model [NAME]"


def test_models_used_last_and_colours_are_there() -> None:
    made = [
        (command.action, command.argument)
        for command in commands(TABLE, ["qwen", "starter"])
        if command.argument
    ]
    assert made == [("model", "qwen"), ("model", "starter"), *(("theme", name) for name in themes.NAMES)]


def test_without_colour_no_colours_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not [command for command in commands(TABLE) if command.argument]


def test_brackets_are_shown_as_they_are() -> None:
    for command in commands(TABLE, ["[red]model"]):
        assert Content.from_markup(command.markup).plain == command.help


class Talk(Screen[None]):
    """A screen that notes what it is to do, as the chat's does it."""

    def compose(self) -> ComposeResult:
        yield TextArea()

    def do(self, action: str, argument: str = "") -> None:
        self.app.done.append((action, argument))


class Talks(App[None]):
    def __init__(self, screen: Screen[None]) -> None:
        super().__init__(**themes.app_arguments())
        self.settings = Settings(recent=("qwen",))
        self.done: list[tuple[str, str]] = []
        self.first = screen

    def get_default_screen(self) -> Screen[None]:
        return self.first

    def on_mount(self) -> None:
        themes.install(self, self.settings.theme)


async def offered(pilot, at_least: int = 1) -> CommandList:
    """The list, when it is filled."""
    deadline = time.monotonic() + 30
    while True:
        found = pilot.app.screen.query_one(CommandList)
        if found.option_count >= at_least and found.highlighted is not None:
            return found
        assert time.monotonic() < deadline
        await pilot.pause(0.02)


async def chosen(pilot, words: str, wanted: tuple[str, str]) -> None:
    """Opens, types, waits until the first one is the wanted one, and takes it."""
    open_palette(pilot.app)
    await pilot.pause()
    await pilot.press(*words)
    deadline = time.monotonic() + 30
    while True:
        found = await offered(pilot)
        run = found.get_option_at_index(found.highlighted).hit.command
        if run.args == wanted:
            break
        assert time.monotonic() < deadline, run.args
        await pilot.pause(0.02)
    await pilot.press("enter")
    while not pilot.app.done:
        assert time.monotonic() < deadline
        await pilot.pause(0.02)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("new chat", ("new", "")),
        ("ctrl+l", ("model", "")),
        ("explain", ("explain", "")),
        ("ember", ("theme", "ember")),
        ("use qwen", ("model", "qwen")),
    ],
)
async def test_what_is_typed_and_chosen_is_done(words: str, wanted: tuple[str, str]) -> None:
    app = Talks(Talk())
    async with app.run_test(size=(80, 24)) as pilot:
        await chosen(pilot, words, wanted)
        assert app.done == [wanted]
        assert not isinstance(app.screen, CommandPalette)


async def test_it_opens_once_with_everything_and_esc_does_nothing() -> None:
    app = Talks(Talk())
    async with app.run_test(size=(60, 20)) as pilot:
        open_palette(app)
        open_palette(app)
        await pilot.pause()
        await offered(pilot, len(commands(TABLE, ["qwen"])))
        assert isinstance(app.focused, CommandInput)
        assert (
            str(app.screen.query_one(SearchIcon).icon).isascii()
            or app.screen.query_one(SearchIcon).icon == "›"
        )
        while isinstance(app.screen, CommandPalette):
            await pilot.press("escape")
            await pilot.pause(0.02)
        assert app.done == [] and isinstance(app.focused, TextArea)


async def test_a_screen_that_does_nothing_offers_nothing() -> None:
    app = Talks(Screen())
    async with app.run_test(size=(60, 20)) as pilot:
        open_palette(app)
        await pilot.pause(0.5)
        assert not any(hasattr(option, "hit") for option in app.screen.query_one(CommandList).options)


@pytest.mark.parametrize("colour", [True, False])
async def test_the_chosen_line_can_be_told_from_the_others(
    colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    app = Talks(Talk())
    async with app.run_test(size=(80, 24)) as pilot:
        open_palette(app)
        await pilot.pause()
        found = await offered(pilot, len(ACTIONS) - 4)
        await pilot.pause()
        lines = [list(found.render_line(y)) for y in (1, 3)]  # keys of the first and the second command
        one, other = (
            {(s.style.bgcolor, s.style.underline) for s in line if s.text.strip()} for line in lines
        )
        assert one != other
        if not colour:
            assert {underline for _, underline in one} == {True} and {
                underline for _, underline in other
            } <= {None, False}
