"""The prompt: every key of the table's place "prompt", completion, markers of long texts, files, the editor."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulated import until
from textual import events
from textual._xterm_parser import XTermParser
from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Static, TextArea

from macllm.errors import InputError, MacllmError
from macllm_tui import editor
from macllm_tui.actions import ACTIONS
from macllm_tui.attachments import attach
from macllm_tui.folds import LONG, Folds, clean
from macllm_tui.widgets.completions import Completions
from macllm_tui.widgets.find_bar import FindBar
from macllm_tui.widgets.prompt import PromptArea, PromptCount

LONG_LINE = "word " * 200_000


class Chat(Screen[None]):
    """Prompt and count as the chat screen has them."""

    AUTO_FOCUS = "PromptArea"
    DEFAULT_CSS = "Chat { #fill { height: 1fr; } #row { height: auto; max-height: 10; } }"

    def compose(self) -> ComposeResult:
        yield Static("", id="fill")
        yield FindBar()
        with Horizontal(id="row"):
            yield PromptArea()
            yield PromptCount("14 tok")

    def action_do(self, action: str) -> None:
        self.app.posted.append(("do", action))  # type: ignore[attr-defined]


class Harness(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.posted: list[Any] = []
        self.sentences: list[str] = []

    def get_default_screen(self) -> Screen[None]:
        return Chat()

    def on_prompt_area_submitted(self, event: PromptArea.Submitted) -> None:
        self.posted.append(event.text)

    def on_prompt_area_slash_command(self, event: PromptArea.SlashCommand) -> None:
        self.posted.append((event.name, event.argument))

    def on_prompt_area_edit_last(self) -> None:
        self.posted.append("edit last")

    def on_find_bar_find(self, event: FindBar.Find) -> None:
        self.posted.append((event.words, event.step))

    def on_find_bar_closed(self) -> None:
        self.posted.append("closed")

    def notify(self, message: str, **more: Any) -> None:
        self.sentences.append(message)

    @property
    def prompt(self) -> PromptArea:
        return self.screen.query_one(PromptArea)

    @property
    def offered(self) -> list[str]:
        return [each.text for each in self.screen.query_one(Completions).offers]


async def paste(pilot: Pilot[None], text: str) -> None:
    pilot.app.post_message(events.Paste(text))
    await pilot.pause()


# keys ---------------------------------------------------------------------------------------------------


async def test_enter_sends_and_begins_anew() -> None:
    async with Harness().run_test() as pilot:
        app = pilot.app
        await pilot.press(*"hi", "enter")
        assert app.posted == ["hi"] and app.prompt.text == ""


async def test_what_could_not_be_sent_comes_back_before_what_was_typed_since() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press(*"hi", "enter", *" you")
        pilot.app.prompt.give_back("hi")
        assert pilot.app.prompt.text == "hi you"


async def test_keys_typed_faster_than_the_app_keep_their_order() -> None:
    async with Harness().run_test() as pilot:
        app = pilot.app
        for key in ("a", "b", "backspace", "c", "left", "d", "enter", "e"):
            character = key if len(key) == 1 else None
            app.post_message(events.Key(key, character))  # all at once: nobody waits for anything
        await pilot.pause()
        await pilot.pause()
        assert app.posted == ["adc"]
        assert app.prompt.text == "e"


async def test_enter_sends_nothing_where_there_is_nothing() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press("enter", "space", "enter", "ctrl+j", "enter")
        assert pilot.app.posted == []


@pytest.mark.parametrize("key", ["ctrl+j", "shift+enter", "alt+enter"])
async def test_a_new_line_in_three_ways(key: str) -> None:
    async with Harness().run_test() as pilot:
        await pilot.press("a", key, "b", "enter")
        assert pilot.app.posted == ["a\nb"]


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("\r", "enter"),
        ("\n", "ctrl+j"),
        ("\x1b\r", "alt+enter"),
        ("\x1b[13;2u", "shift+enter"),
        ("\x1b[13;3u", "alt+enter"),
    ],
)
def test_what_terminals_send_for_these_keys(sent: str, key: str) -> None:
    parser = XTermParser(False)
    found = [*parser.feed(sent), *parser.feed("")]
    assert [event.key for event in found if isinstance(event, events.Key)] == [key]


async def test_up_in_an_empty_prompt_edits_the_last_message_else_moves() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press("up")
        assert pilot.app.posted == ["edit last"]
        await pilot.press("a", "ctrl+j", "b", "up", "c")
        assert pilot.app.prompt.text == "ac\nb" and pilot.app.posted == ["edit last"]


@pytest.mark.parametrize(
    "action",
    [
        action
        for action in ACTIONS
        if action.place == "prompt" and action.id not in ("send", "newline", "edit_last")
    ],
    ids=lambda action: action.id,
)
async def test_the_other_keys_of_the_prompt_are_done_by_the_screen(action: Any) -> None:
    async with Harness().run_test() as pilot:
        pilot.app.set_keymap({action.id: action.key or "f12"})
        await pilot.press("a", (action.key or "f12").split(",")[0])
        assert pilot.app.posted == [("do", action.id)]
        assert pilot.app.prompt.text == "a"


async def test_every_action_of_the_prompt_has_a_binding_with_its_id() -> None:
    ids = {binding.id for binding in PromptArea.BINDINGS}
    assert ids == {action.id for action in ACTIONS if action.place == "prompt"}


async def test_keys_can_be_moved() -> None:
    async with Harness().run_test() as pilot:
        pilot.app.set_keymap({"send": "ctrl+j", "newline": "enter", "edit_last": "alt+e"})
        await pilot.press("a", "enter", "b", "up", "c", "ctrl+j")
        assert pilot.app.posted == ["ac\nb"]
        pilot.app.prompt.clear()
        await pilot.press("up", "alt+e")
        assert pilot.app.posted == ["ac\nb", "edit last"]


async def test_a_key_with_nothing_to_do_here_goes_on_to_the_app() -> None:
    async with Harness().run_test() as pilot:
        await pilot.press("a", "ctrl+c")  # nothing is selected: the app says how to quit
        assert pilot.app.clipboard == "" and len(pilot.app.sentences) == 1


async def test_no_key_of_the_table_is_taken_by_the_text() -> None:
    chat = {key for action in ACTIONS if action.place == "chat" for key in action.key.split(",") if key}
    own = {key for binding in TextArea.BINDINGS for key in binding.key.split(",")}
    assert not chat & own
    assert not {"ctrl+j", "ctrl+r", "ctrl+g"} & own


# text ---------------------------------------------------------------------------------------------------


async def test_it_grows_with_its_text_to_eight_rows() -> None:
    async with Harness().run_test(size=(60, 20)) as pilot:
        prompt = pilot.app.prompt
        assert prompt.size.height == 1
        await pilot.press("a", "ctrl+j", "b")
        assert prompt.size.height == 2
        prompt.text = "a sentence that is longer than one row of sixty columns, so that it wraps"
        await pilot.pause()
        assert prompt.size.height == 2
        prompt.text = "\n" * 30
        await pilot.pause()
        assert prompt.size.height == 8
        prompt.text = ""
        await pilot.pause()
        assert prompt.size.height == 1


async def test_pasted_lines_never_send() -> None:
    async with Harness().run_test() as pilot:
        await paste(pilot, "one\r\ntwo\rthree\n/help\n")
        assert pilot.app.posted == []
        assert pilot.app.prompt.text == "one\ntwo\nthree\n/help\n"
        await pilot.press("enter")
        assert pilot.app.posted == ["one\ntwo\nthree\n/help"]


async def test_control_characters_do_not_reach_the_terminal() -> None:
    async with Harness().run_test() as pilot:
        await paste(pilot, "a\x1b[31mred\x9b2J\x07\tb")
        assert pilot.app.prompt.text == "a[31mred2J\tb"
        pilot.app.prompt.text = "\x1b]0;title\x07"
        assert "\x1b" not in pilot.app.prompt.text


async def test_what_is_inserted_by_the_app_can_be_undone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one\n")
    async with Harness().run_test() as pilot:
        await pilot.press(*"look ")
        await pilot.app.prompt.insert_file(path)
        assert pilot.app.prompt.text == f"look \n{attach(path)}\n"
        await pilot.press("o", "k", "ctrl+z", "ctrl+z")
        assert pilot.app.prompt.text == "look "
        await pilot.press("ctrl+y")
        assert pilot.app.prompt.text == f"look \n{attach(path)}\n"


# markers ------------------------------------------------------------------------------------------------


async def test_a_megabyte_pasted_is_one_marker_and_typing_stays_quick() -> None:
    async with Harness().run_test() as pilot:
        prompt = pilot.app.prompt
        await paste(pilot, LONG_LINE)
        await pilot.press(*"what?")
        assert prompt.document.text == "[pasted: 1.0 MB]what?"
        assert prompt.text == LONG_LINE + "what?"
        started = time.perf_counter()
        for _ in range(100):
            prompt.insert("x")
        assert time.perf_counter() - started < 5  # one such key took over a second before there were markers
        await pilot.press("enter")
        assert pilot.app.posted == [LONG_LINE + "what?" + "x" * 100]


async def test_a_marker_is_passed_and_deleted_as_one_character() -> None:
    async with Harness().run_test() as pilot:
        prompt = pilot.app.prompt
        await pilot.press("a")
        await paste(pilot, "line\n" * 500)
        await pilot.press("b")
        end = len("a[pasted: 501 lines, 2.5 kB]")
        await pilot.press("left", "left")
        assert prompt.cursor_location == (0, 1)
        await pilot.press("right")
        assert prompt.cursor_location == (0, end)
        await pilot.press("left", "delete")
        assert prompt.text == "ab"
        await pilot.press("ctrl+z")
        assert prompt.text == "a" + "line\n" * 500 + "b"
        prompt.move_cursor((0, end))
        await pilot.press("backspace")
        assert prompt.text == "ab"


async def test_copied_markers_are_what_they_stand_for() -> None:
    async with Harness().run_test() as pilot:
        await paste(pilot, LONG_LINE)
        await pilot.press("f7", "ctrl+c")
        assert pilot.app.clipboard == LONG_LINE
        pilot.app.copy_to_clipboard("")
        await pilot.press("f7", "ctrl+x")
        assert pilot.app.clipboard == LONG_LINE and pilot.app.prompt.text == ""
        await pilot.press("ctrl+v")
        assert pilot.app.prompt.text == LONG_LINE and len(pilot.app.prompt.document.text) < 40


async def test_a_draft_comes_back_with_its_markers(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("row\n" * 1000)
    async with Harness().run_test() as pilot:
        prompt = pilot.app.prompt
        await pilot.press(*"see ")
        await prompt.insert_file(tmp_path / "big.txt")
        shown, draft = prompt.document.text, prompt.text
        prompt.text = "another chat"
        prompt.text = draft
        assert (prompt.document.text, prompt.text) == (shown, draft)
    async with Harness().run_test() as pilot:  # a message written in an earlier run is edited
        pilot.app.prompt.text = draft
        assert pilot.app.prompt.text == draft
        assert pilot.app.prompt.document.text.startswith("see \n[big.txt: 1,002 lines")


_PIECES = st.lists(
    st.text(alphabet="ab \n[]`", max_size=12)
    | st.integers(1, 3).map(lambda n: f"{n}" * (LONG + n))
    | st.integers(1, 2).map(lambda n: f"```file:{n}.txt\n" + f"{n}\n" * LONG + "```"),
    max_size=6,
)


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])  # texts this long take minutes to shrink
@given(_PIECES, _PIECES)
def test_markers_lose_nothing(pieces: list[str], others: list[str]) -> None:
    folds = Folds()
    shown = "".join(folds.fold_long(piece) for piece in pieces)
    whole = "".join(pieces)
    assert folds.expand(shown) == whole
    for text in ("".join(others), whole):
        folded = folds.refold(text)
        assert folds.expand(folded) == text
        assert len(folded) <= LONG + 60


@given(st.text())
def test_clean_text_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert all(character.isprintable() or character in "\n\t" or ord(character) > 0x9F for character in once)


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


# the find bar -------------------------------------------------------------------------------------------


async def test_the_find_bar_is_hidden_until_it_is_opened() -> None:
    async with Harness().run_test(size=(60, 20)) as pilot:
        bar = pilot.app.screen.query_one(FindBar)
        assert not bar.display and pilot.app.prompt.has_focus
        bar.open()
        await pilot.press(*"ab")
        assert pilot.app.posted == [("a", 1), ("ab", 1)]
        bar.show_count(3, 12)
        await pilot.pause()
        assert bar.region.height == 1
        assert "3 of 12" in str(bar.query_one(".find--count", Static).render())
        bar.show_count(0, 0)
        assert "not found" in str(bar.query_one(".find--count", Static).render())


@pytest.mark.parametrize(("key", "step"), [("enter", 1), ("down", 1), ("shift+enter", -1), ("up", -1)])
async def test_the_find_bar_steps(key: str, step: int) -> None:
    async with Harness().run_test() as pilot:
        pilot.app.screen.query_one(FindBar).open("word")
        await pilot.pause()
        assert pilot.app.posted == [("word", 1)]
        await pilot.press(key)
        assert pilot.app.posted[1:] == [("word", step)]


async def test_the_find_bar_closes_and_keeps_its_words() -> None:
    async with Harness().run_test() as pilot:
        bar = pilot.app.screen.query_one(FindBar)
        bar.open("word")
        await pilot.press("escape")
        assert pilot.app.posted[-1] == "closed" and not bar.display
        bar.open()
        await pilot.pause()
        assert pilot.app.posted[-1] == ("word", 1)
        await pilot.press("x")  # the words are selected: typing replaces them
        assert pilot.app.posted[-1] == ("x", 1)
