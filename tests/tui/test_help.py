"""Help: every key and command is there, typing narrows it down, and it closes as it says."""

import pytest
from textual.app import App, ComposeResult
from textual.screen import Screen
from textual.widgets import Input, Static, TextArea

from macllm_tui.actions import ACTIONS, BY_ID, slash_commands
from macllm_tui.bindings import key_name, keymap
from macllm_tui.screens.help import HelpScreen, matching, rows
from macllm_tui.settings import settings_path


class Behind(App[None]):
    """A screen with a prompt, and help over it."""

    def __init__(self, keys: dict[str, str] | None = None) -> None:
        super().__init__()
        self.keys = keys or {}
        self.set_keymap(keymap(self.keys).overrides)

    def compose(self) -> ComposeResult:
        yield TextArea()


async def opened(app: Behind, pilot) -> Screen[None]:
    help_ = HelpScreen(app.keys)
    await app.push_screen(help_)
    await pilot.pause()
    await pilot.pause()
    return help_


def text_of(screen: Screen[None]) -> str:
    return str(screen.query_one("#text", Static).content)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_it_lists_every_key_and_every_command(size: tuple[int, int]) -> None:
    app = Behind()
    async with app.run_test(size=size) as pilot:
        help_ = await opened(app, pilot)
        text = text_of(help_)
        squeezed = " ".join(text.split())
        for action in ACTIONS:
            for key in action.key.split(","):
                assert not key or key_name(key) in text, action.id
            assert action.slash in text
            assert not (action.key or action.slash) or action.help in squeezed, action.id
        assert all(f"/{name}" in text for name in slash_commands())
        widest = help_.query_one("#rows").scrollable_content_region.width
        own_keys = text.index("YOUR OWN KEYS")  # a paragraph, which the widget breaks
        assert max(len(line) for line in text[:own_keys].split("\n")) <= widest


def test_every_action_has_a_row_where_it_works() -> None:
    made = rows(keymap({}).keys)
    for action in ACTIONS:
        groups = {row.group for row in matching(made, action.id) if row.help == action.help}
        assert (action.place in groups) == bool(action.key)
        assert ("slash" in groups) == bool(action.slash)


async def test_it_says_how_keys_are_changed_and_what_their_names_are() -> None:
    app = Behind()
    async with app.run_test(size=(120, 40)) as pilot:
        text = text_of(await opened(app, pilot))
        assert str(settings_path()) in text
        assert all(action.id in text[text.index("The names:") :] for action in ACTIONS)


async def test_it_shows_the_keys_in_force() -> None:
    app = Behind({"new": "f9", "finetune": ""})
    async with app.run_test(size=(120, 40)) as pilot:
        text = text_of(await opened(app, pilot))
        chat = text.partition("COMMANDS TO TYPE")[0]
        assert "f9" in chat and "ctrl+n" not in chat
        assert "f3" not in chat and BY_ID["finetune"].slash in text


async def test_typing_narrows_it_down_and_an_empty_search_shows_all() -> None:
    app = Behind()
    async with app.run_test(size=(80, 24)) as pilot:
        help_ = await opened(app, pilot)
        every = text_of(help_)
        await pilot.press(*"CTRL+n")
        await pilot.pause()
        assert "start a new chat" in text_of(help_) and "this help" not in text_of(help_)
        help_.query_one(Input).value = "system preset"
        await pilot.pause()
        assert "f2" in text_of(help_) and "/system [TEXT]" in text_of(help_)
        assert text_of(help_).count("\n") < 14
        help_.query_one(Input).value = ""
        await pilot.pause()
        assert text_of(help_) == every


async def test_a_word_that_is_nowhere_is_told() -> None:
    app = Behind()
    async with app.run_test(size=(80, 24)) as pilot:
        help_ = await opened(app, pilot)
        help_.query_one(Input).value = "[zebra]"
        await pilot.pause()
        assert "“[zebra]”" in text_of(help_) and "Another word" in text_of(help_)


@pytest.mark.parametrize(
    ("keys", "key"), [({}, "escape"), ({}, "f1"), ({"help": "f9"}, "f9"), ({"help": "f9"}, "escape")]
)
async def test_it_closes_and_the_prompt_has_the_keys_again(keys: dict[str, str], key: str) -> None:
    app = Behind(keys)
    async with app.run_test(size=(80, 24)) as pilot:
        help_ = await opened(app, pilot)
        assert isinstance(app.focused, Input)
        shown = str(help_.query_one("#foot", Static).content)
        assert key_name(key) in shown
        await pilot.press(key)
        await pilot.pause()
        assert not isinstance(app.screen, HelpScreen)
        await pilot.press("a")
        assert app.query_one(TextArea).text == "a"


async def test_arrows_and_pages_scroll_while_typing() -> None:
    app = Behind()
    async with app.run_test(size=(60, 20)) as pilot:
        help_ = await opened(app, pilot)
        place = help_.query_one("#rows")
        for key, moved in (("down", 1), ("up", 0), ("pagedown", place.size.height - 1), ("pageup", 0)):
            await pilot.press(key)
            await pilot.pause()
            assert place.scroll_offset.y == moved, key
        assert isinstance(app.focused, Input)


async def test_it_follows_the_size_of_the_terminal() -> None:
    app = Behind()
    async with app.run_test(size=(120, 40)) as pilot:
        help_ = await opened(app, pilot)
        wide = text_of(help_)
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        await pilot.pause()
        assert text_of(help_) != wide
