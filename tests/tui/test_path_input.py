"""A field for a path: tab completes it, and goes on where there is nothing more to say."""

import asyncio
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.widgets import Input

from macllm_tui.widgets.fields import PathInput

DEADLINE_S = 20


class Host(App[None]):
    """The field, and one to go on to."""

    def __init__(self) -> None:
        super().__init__()
        self.path = PathInput("", "", (".jsonl",), "train.jsonl")

    def compose(self) -> ComposeResult:
        yield self.path
        yield Input()

    def on_mount(self) -> None:
        self.path.focus()

    def type(self, text: str) -> None:
        self.path.value = text
        self.path.cursor_position = len(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "poems.jsonl").touch()
    (tmp_path / "notes.md").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").touch()
    return tmp_path


async def suggested(app: Host, wanted: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while app.path._suggestion != wanted:
            await asyncio.sleep(0.01)


async def test_tab_completes_a_path_then_goes_on(folder: Path) -> None:
    app = Host()
    async with app.run_test() as pilot:
        app.type(f"{folder}/po")
        await suggested(app, f"{folder}/poems.jsonl")
        await pilot.press("tab")
        assert app.path.value == f"{folder}/poems.jsonl" and app.focused is app.path
        await pilot.press("tab")
        assert app.focused is not app.path


async def test_tab_goes_on_from_a_folder_that_is_complete(folder: Path) -> None:
    app = Host()
    async with app.run_test() as pilot:
        app.type(f"{folder}/se")
        await suggested(app, f"{folder}/set/")
        await pilot.press("tab")
        assert app.path.value == f"{folder}/set/" and app.focused is app.path
        await suggested(app, "")
        await pilot.press("tab")
        assert app.path.value == f"{folder}/set/" and app.focused is not app.path


async def test_what_is_not_looked_for_is_not_suggested(folder: Path) -> None:
    suggester = Host().path.suggester
    assert suggester is not None
    assert await suggester.get_suggestion(f"{folder}/no") is None
    assert await suggester.get_suggestion(f"{folder}/set/tr") == f"{folder}/set/train.jsonl"
    assert await suggester.get_suggestion(f"{folder}/set/") is None
    assert await suggester.get_suggestion(f"{folder}/nowhere/x") is None
