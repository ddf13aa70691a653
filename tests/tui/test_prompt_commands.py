"""The prompt: commands that complete themselves, files, the person's own editor."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prompt_app import Harness
from simulated import until

from macllm.errors import InputError, MacllmError
from macllm_tui import editor
from macllm_tui.widgets.completions import Completions

# commands -----------------------------------------------------------------------------------------------


async def test_a_command_is_posted_with_the_id_of_its_action() -> None:
    async with Harness().run_test() as pilot:
        pilot.app.prompt.text = "/set temp=0.7"
        await pilot.press("enter")
        pilot.app.prompt.text = "/history"
        await pilot.press("enter")
        assert pilot.app.posted == [("set", "temp=0.7"), ("prompt_history", "")]


async def test_a_path_in_a_question_is_sent() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press(*"/usr/bin/x does what?", "enter")
        assert pilot.app.posted == ["/usr/bin/x does what?"]


async def test_an_unknown_command_is_told_and_stays() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press(*"/hlep", "enter")
        assert pilot.app.posted == []
        assert pilot.app.prompt.text == "/hlep"
        assert "did you mean /help?" in pilot.app.sentences[0]


async def test_the_list_opens_filters_and_closes() -> None:
    async with Harness().run_test() as pilot:
        app = pilot.app
        listing = app.screen.query_one(Completions)
        await pilot.press("/")
        assert len(app.offered) > 20 and listing.display
        await pilot.pause()
        assert listing.region.bottom == app.prompt.region.y  # directly over the prompt
        await pilot.press(*"the")
        assert app.offered == ["/theme "]
        await pilot.press("escape")
        assert app.offered == [] and not listing.display and app.prompt.text == "/the"
        await pilot.press("backspace")
        assert "/thinking" in app.offered
        await pilot.press("backspace", "backspace", "backspace")
        assert app.offered == []


async def test_tab_completes_and_enter_runs_what_is_complete() -> None:
    async with Harness().run_test() as pilot:
        app = pilot.app
        await pilot.press(*"/hel", "tab")
        assert app.prompt.text == "/help" and app.posted == []
        await pilot.press("enter")
        assert app.posted == [("help", "")]
        app.prompt.text = ""
        await pilot.press(*"/thi", "enter")
        assert app.posted[1:] == [("thinking", "")]
        app.prompt.text = ""
        await pilot.press(*"/attac", "enter")  # it needs a file
        assert app.prompt.text == "/attach " and len(app.posted) == 2


async def test_up_and_down_choose_round_the_ends() -> None:
    async with Harness().run_test() as pilot:
        app = pilot.app
        await pilot.press(*"/th", "down", "tab")
        first, second = "/theme ", "/thinking"
        assert app.prompt.text in (first, second)
        taken = app.prompt.text
        app.prompt.text = ""
        await pilot.press(*"/th", "up", "up", "up", "tab")
        assert app.prompt.text == taken
        app.prompt.text = ""
        await pilot.press(*"/th", "tab")
        assert {app.prompt.text, taken} == {first, second}


async def test_names_of_settings_are_completed() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press(*"/set top-p", "tab")
        assert pilot.app.prompt.text == "/set top-p="
        assert pilot.app.offered == []
        await pilot.press(*"0.9", "enter")
        assert pilot.app.posted == [("set", "top-p=0.9")]


async def test_values_given_by_the_screen_are_completed() -> None:
    async with Harness().run_test() as pilot:
        pilot.app.prompt.offers = {"theme": ("paper", "ember")}
        await pilot.press(*"/theme ", "down", "enter")
        assert pilot.app.posted == [("theme", "ember")]


async def test_paths_are_completed_folder_by_folder(tmp_path: Path) -> None:
    (tmp_path / "my notes").mkdir()
    (tmp_path / "my notes" / "one.txt").write_text("1")
    (tmp_path / ".hidden").write_text("")
    async with Harness().run_test() as pilot:
        app = pilot.app
        app.prompt.text = f"/attach {tmp_path}/"
        await until(pilot, lambda: bool(app.offered))
        assert app.offered == [f"/attach {tmp_path}/my notes/"]
        await pilot.press("tab")
        await until(pilot, lambda: app.offered == [f"/attach {tmp_path}/my notes/one.txt"])
        await pilot.press("enter", "enter")
        assert app.posted == [("attach", f"{tmp_path}/my notes/one.txt")]
        app.prompt.text = f"/import {tmp_path}/."
        await until(pilot, lambda: app.offered == [f"/import {tmp_path}/.hidden"])
        app.prompt.text = f"/attach {tmp_path}/nothing/"
        await pilot.pause()
        assert app.offered == []


async def test_a_click_takes_a_completion() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press(*"/the")
        await pilot.pause()
        await pilot.click(Completions, offset=(3, 0))
        assert pilot.app.prompt.text == "/theme " and pilot.app.prompt.has_focus


async def test_the_list_is_gone_when_the_prompt_is_left() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press("/")
        pilot.app.screen.set_focus(None)
        await pilot.pause()
        assert pilot.app.offered == []


# files and the editor -----------------------------------------------------------------------------------


async def test_a_file_that_cannot_be_read_leaves_the_prompt(tmp_path: Path) -> None:
    async with Harness().run_test() as pilot:
        await pilot.press("a")
        with pytest.raises(InputError, match="there is no file"):
            await pilot.app.prompt.insert_file(f"{tmp_path}/nothing")
        assert pilot.app.prompt.text == "a"


def script(path: Path, code: str) -> str:
    """An editor that does one thing; its file is ``$1``."""
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o700)
    return str(path)


def test_the_editor_gets_a_private_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    ed = script(
        tmp_path / "ed",
        f'ls -l "$2" > {seen}; echo "$1" >> {seen}; cat "$2" >> {seen}; printf "new\\n" > "$2"',
    )
    assert editor.edit("old\ntext", [ed, "--wait"]) == "new"
    listing, argument, *text = seen.read_text().splitlines()
    assert listing.startswith("-rw-------") and listing.endswith(".md")
    assert argument == "--wait" and text == ["old", "text"]
    assert not Path(listing.split()[-1]).exists()


def test_which_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", " ")
    monkeypatch.setenv("EDITOR", "code --wait")
    assert editor.command() == ["code", "--wait"]
    monkeypatch.setenv("VISUAL", "vim")
    assert editor.command() == ["vim"]
    monkeypatch.setenv("VISUAL", "vim '")
    with pytest.raises(InputError, match="VISUAL=vim ' has a quote"):
        editor.command()
    monkeypatch.delenv("VISUAL")
    monkeypatch.delenv("EDITOR")
    with pytest.raises(InputError, match=r"no editor is set; .*EDITOR"):
        editor.command()


def test_an_editor_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(MacllmError, match="status 3; the prompt is as it was"):
        editor.edit("text", [script(tmp_path / "a", "exit 3")])
    with pytest.raises(MacllmError, match="'/nothing/vi' cannot be used"):
        editor.edit("text", ["/nothing/vi"])
    with pytest.raises(MacllmError, match="UTF-8"):
        editor.edit("text", [script(tmp_path / "b", r'printf "\377" > "$1"')])
    with pytest.raises(MacllmError, match="cannot be used"):
        editor.edit("text", [script(tmp_path / "c", 'rm "$1"')])


def test_an_interrupt_in_the_editor_is_not_the_apps(tmp_path: Path) -> None:
    assert editor.edit("text", [script(tmp_path / "a", "kill -INT $PPID; sleep 0.1")]) == "text"


async def test_without_a_terminal_the_editor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "true")
    async with Harness().run_test() as pilot:
        with pytest.raises(MacllmError, match="needs a terminal"):
            await pilot.app.prompt.edit_in_editor()


_EDITOR_APP = """
from textual.app import App
from macllm_tui.widgets.prompt import PromptArea
class A(App):
    def compose(self):
        yield PromptArea("draft")
    async def on_mount(self):
        self.run_worker(self.go())
    async def go(self):
        prompt = self.query_one(PromptArea)
        await prompt.edit_in_editor()
        edited = prompt.text
        prompt.undo()
        self.exit((edited, prompt.text))
edited = A().run()
import os
open(os.environ["RESULT"], "w").write(repr(edited))
"""


def test_the_editor_has_the_terminal_and_what_it_wrote_can_be_undone(tmp_path: Path) -> None:
    ed = script(tmp_path / "ed", 'test -t 0 && test -t 1 && echo "written by the editor" > "$1"')
    result = tmp_path / "result"
    main, other = pty.openpty()
    environment = {**os.environ, "EDITOR": ed, "VISUAL": "", "RESULT": str(result), "TERM": "xterm-256color"}
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", _EDITOR_APP],
        stdin=other,
        stdout=other,
        stderr=other,
        env={**environment, "PYTHONPATH": root},
        start_new_session=True,
    )
    os.close(other)
    end = time.monotonic() + 40
    while process.poll() is None and time.monotonic() < end:
        if select.select([main], [], [], 0.1)[0]:
            try:
                os.read(main, 65536)
            except OSError:  # the other end is closed
                break
    assert process.wait(timeout=10) == 0
    os.close(main)
    assert result.read_text() == repr(("written by the editor", "draft"))
