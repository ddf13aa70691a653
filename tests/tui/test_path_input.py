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


async def suggested(app: Host, wanted: set[str]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while app.path._suggestion not in wanted:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("typed", "whole"), [("po", "poems.jsonl"), ("se", "set/")])
async def test_tab_completes_a_file_or_a_folder_that_is_complete_then_goes_on(
    typed: str, whole: str, folder: Path
) -> None:
    app = Host()
    async with app.run_test() as pilot:
        app.type(f"{folder}/{typed}")
        await suggested(app, {f"{folder}/{whole}"})
        await pilot.press("tab")
        assert app.path.value == f"{folder}/{whole}" and app.focused is app.path
        await suggested(app, {"", app.path.value})  # nothing more
        await pilot.press("tab")
        assert app.path.value == f"{folder}/{whole}" and app.focused is not app.path


async def test_what_is_not_looked_for_is_not_suggested(folder: Path) -> None:
    suggester = Host().path.suggester
    assert suggester is not None
    assert await suggester.get_suggestion(f"{folder}/no") is None
    assert await suggester.get_suggestion(f"{folder}/set/tr") == f"{folder}/set/train.jsonl"
    assert await suggester.get_suggestion(f"{folder}/set/") is None
    assert await suggester.get_suggestion(f"{folder}/nowhere/x") is None
