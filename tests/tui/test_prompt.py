"""The prompt: every key of the table's place "prompt", markers of long texts, the find bar over it."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prompt_app import Harness, paste
from textual import events
from textual._xterm_parser import XTermParser
from textual.widgets import Static, TextArea

from macllm_tui.actions import ACTIONS
from macllm_tui.attachments import attach
from macllm_tui.folds import LONG, Folds, clean
from macllm_tui.widgets.find_bar import FindBar
from macllm_tui.widgets.prompt import PromptArea

LONG_LINE = "word " * 200_000


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
    assert chat & own == {"pageup", "pagedown"}  # a prompt is shorter than a page: they read the chat
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
