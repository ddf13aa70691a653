"""The transcript in an app without a screen: what one sees, what follows, what stays where it is."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from textual.geometry import Offset
from textual.selection import Selection
from transcript_app import TranscriptApp, entry, talk, until

from macllm.engine.metrics import Metrics
from macllm_tui.widgets.message import MessageView
from macllm_tui.widgets.transcript import Transcript

FIGURES = Metrics(decode_tps=71.3, decode_tokens=412, ttft_s=0.41)
LONG = "\n\n".join(f"Paragraph {number} of it." for number in range(60))


def top(transcript: Transcript) -> tuple[str, int]:
    """The message at the top of the screen, and how far it is scrolled out."""
    for view in transcript.query(MessageView):
        if view.region.bottom > transcript.region.y:
            return view.entry.message.id, transcript.region.y - view.region.y
    raise AssertionError("no message is seen")


def rows(view: MessageView) -> list[str]:
    return [view.render_line(y).text.rstrip() for y in range(view.size.height)]


async def test_an_empty_chat_says_what_to_do() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([])
        assert "Type a message. f1 shows all keys." in app.screen_text()
        await app.transcript.append(entry(0, text="Hello"))
        await pilot.pause()
        assert "Type a message" not in app.screen_text()
        assert "Hello" in app.screen_text()


async def test_a_message_shows_who_what_and_how_fast() -> None:
    app = TranscriptApp()
    reply = entry(1, text="It **is**.", thought="Hm.", thought_s=4.2, metrics=FIGURES, position=2, siblings=3)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([entry(0, text="Is *it*\n  so?"), reply])
        await pilot.pause()
        said, answered = app.query(MessageView)
        assert rows(said) == ["  you", "  Is *it*", "    so?"]
        assert rows(answered)[0].split() == ["Qwen3-8B-4bit", "‹2/3›"]
        assert rows(answered)[0].endswith("‹2/3›") and len(rows(answered)[0]) > 70
        assert rows(answered)[1:] == ["  ▸ thought 4.2 s", "  It is.", "  71.3 tok/s · 412 tok · TTFT 0.41 s"]


@pytest.mark.parametrize(
    ("state", "error", "said"),
    [
        ("stopped", "", "· stopped"),
        ("length", "", "· cut at the limit"),
        ("failed", "the prompt is\ntoo long\x1b[2J", "· failed: the prompt is too long␛[2J"),
        ("partial", "", "· engine stopped: reply incomplete"),
        ("complete", "", ""),
    ],
)
async def test_a_message_says_what_became_of_it(state: str, error: str, said: str) -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([entry(1, text="Half", state=state, error=error)])
        await pilot.pause()
        assert rows(app.query_one(MessageView))[0] == f"  Qwen3-8B-4bit {said}".rstrip()


async def test_a_long_chat_mounts_its_end_and_the_rest_when_one_gets_there() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.transcript
        await transcript.show(talk(200))
        await pilot.pause()
        assert len(app.query(MessageView)) == 20
        assert "Message 199 says" in app.screen_text()
        transcript.scroll_to(y=3, animate=False)
        await pilot.pause()
        before = top(transcript)
        await until(pilot, lambda: len(app.query(MessageView)) > 20)
        assert top(transcript) == before  # no jump
        for _ in range(60):
            transcript.scroll_to(y=0, animate=False)
            await pilot.pause()
            if transcript._low == 0:
                break
            await until(pilot, lambda low=transcript._low: transcript._low < low or transcript.scroll_y > 0)
        await until(pilot, lambda: "Message 0 says" in app.screen_text() or transcript.scroll_y > 0)
        ids = [view.entry.message.id for view in app.query(MessageView)]
        assert ids == [str(number) for number in range(int(ids[0]), 200)]


async def test_home_and_end_reach_both_ends_of_a_long_chat() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show(talk(200))
        app.transcript.focus()
        await pilot.press("home")
        await until(pilot, lambda: "Message 0 says" in app.screen_text())
        assert len(app.query(MessageView)) <= 40
        assert not app.transcript.following
        await pilot.press("end")
        await until(pilot, lambda: "Message 199 says" in app.screen_text())
        assert app.transcript.following
        await pilot.press("ctrl+home")
        await until(pilot, lambda: "Message 0 says" in app.screen_text())
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "Message 199 says" in app.screen_text())
        await pilot.press("home")
        await until(pilot, lambda: "Message 0 says" in app.screen_text())
        for _ in range(8):  # and down again, over messages that were not mounted
            app.transcript.scroll_to(y=app.transcript.max_scroll_y - 4, animate=False)
            await pilot.pause()
        await until(pilot, lambda: len(app.query(MessageView)) > 20)
        ids = [view.entry.message.id for view in app.query(MessageView)]
        assert ids == [str(number) for number in range(len(ids))]


async def test_a_reply_streams_thinks_and_ends_as_it_is_stored() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.transcript
        await transcript.show([entry(0, text="Say it")])
        await transcript.begin(entry(1, state="partial"))
        transcript.feed("", "First I think.\n" * 9 + "Then more")
        await until(pilot, lambda: "Then more" in app.screen_text())
        assert "▾ thinking…" in app.screen_text()
        assert app.screen_text().count("First I think.") == 2
        transcript.feed("It is **bo")
        await until(pilot, lambda: "It is **bo" in app.screen_text())
        assert "▸ thought" in app.screen_text() and "First I think." not in app.screen_text()
        transcript.feed("ld**.\n\n```py\nx = 1\n")
        await until(pilot, lambda: "x = 1" in app.screen_text())
        assert "It is bold." in app.screen_text()
        transcript.feed("```\nDone")
        await until(pilot, lambda: "Done" in app.screen_text())
        live = rows(app.query(MessageView).last())
        text = "It is **bold**.\n\n```py\nx = 1\n```\nDone"
        thought = "First I think.\n" * 9 + "Then more"
        whole = entry(1, text=text, thought=thought, thought_s=2.0, metrics=FIGURES)
        await transcript.finish(whole)
        await until(pilot, lambda: "TTFT" in app.screen_text())
        streamed = rows(app.query(MessageView).last())
        assert streamed[2:-1] == live[2:]  # but for the seconds and the figures, as it was seen before
        assert transcript.entries[-1] == whole
        await transcript.show([])
        await transcript.show([whole])
        await pilot.pause()
        assert rows(app.query_one(MessageView)) == streamed


async def test_what_is_fed_before_the_widget_stands_is_not_lost() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        beginning = app.transcript.begin(entry(1, text="Start, ", state="partial"))
        task = app.run_worker(beginning)
        await pilot.pause(0)
        app.transcript.feed("early, ")
        await task.wait()
        app.transcript.feed("late.")
        await until(pilot, lambda: "Start, early, late." in app.screen_text())


async def test_the_bottom_is_followed_until_one_scrolls_up_and_again_at_the_end() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.transcript
        await transcript.show(talk(10))
        await transcript.begin(entry(11, state="partial"))
        transcript.feed(LONG)
        await until(pilot, lambda: "Paragraph 59" in app.screen_text())
        assert transcript.scroll_y == transcript.max_scroll_y
        transcript.scroll_to(y=transcript.max_scroll_y - 8, animate=False)
        await pilot.pause()
        before, place = app.screen_text(), transcript.scroll_y
        transcript.feed("\n\nAnd new.\n\nAnd newer.")
        await until(pilot, lambda: "↓ new text" in app.screen_text())
        assert transcript.scroll_y == place
        after = app.screen_text()
        for seen, was in zip(after.splitlines()[:23], before.splitlines()[:23], strict=True):
            assert seen[:78].rstrip() == was[:78].rstrip()  # beside the scroll bar
        transcript.focus()
        await pilot.press("end")
        await until(pilot, lambda: "And newer." in app.screen_text())
        assert "↓ new text" not in app.screen_text()
        transcript.feed("\n\nThe last.")
        await until(pilot, lambda: "The last." in app.screen_text())
        await transcript.finish(entry(11, text=LONG + "\n\nAnd new.\n\nAnd newer.\n\nThe last."))
        await pilot.pause()
        assert transcript.scroll_y == transcript.max_scroll_y


@pytest.mark.parametrize(("rows_up", "follows"), [(2, True), (3, False)])
async def test_following_begins_again_within_two_rows_of_the_bottom(rows_up: int, follows: bool) -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.transcript
        await transcript.show([entry(0, text=LONG)])
        await pilot.pause()
        transcript.scroll_to(y=transcript.max_scroll_y - 10, animate=False)
        await pilot.pause()
        assert not transcript.following
        transcript.scroll_to(y=transcript.max_scroll_y - rows_up, animate=False)
        await pilot.pause()
        assert transcript.following is follows


async def test_the_place_stays_when_the_width_changes() -> None:
    app = TranscriptApp()
    words = "words that are many and have to be broken at the width " * 8
    async with app.run_test(size=(120, 24)) as pilot:
        transcript = app.transcript
        await transcript.show(talk(20, "Message {}: " + words))
        await pilot.pause()
        transcript.read(transcript.query(MessageView)[12], 0)
        await pilot.pause()
        assert top(transcript) == ("12", 0)
        await pilot.resize_terminal(60, 24)
        await until(pilot, lambda: transcript.size.width < 70)
        assert top(transcript) == ("12", 0)
        text = " ".join(app.screen_text().split())
        assert "Message 12: " + words.strip() in text


async def test_messages_are_chosen_with_a_bar_that_needs_no_colour() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.transcript
        await transcript.show(talk(30))
        transcript.choose(1)
        transcript.choose(-1)
        await pilot.pause()
        assert transcript.chosen is transcript.entries[28]
        bars = [line for line in app.screen_text().splitlines() if line.startswith("▌")]
        assert bars[0] == "▌ you" and "Message 28 says" in bars[1]
        transcript.choose(1)
        transcript.choose(1)
        await pilot.pause()
        assert transcript.chosen is None
        assert "▌" not in app.screen_text()
        transcript.choose(-25)  # from none: counted from the end, also over what is not mounted
        await until(pilot, lambda: "▌ Message 5 says" in app.screen_text())
        transcript.choose(-99)
        await until(pilot, lambda: "▌ Message 0 says" in app.screen_text())
        transcript.unchoose()
        await pilot.pause()
        assert app.chosen == ["29", "28", "29", None, "5", "0", None]


async def test_a_click_chooses_and_unfolds_and_a_drag_only_selects() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        file = "```file:notes.txt\nsecret words\n```"
        await app.transcript.show(
            [entry(0, text=f"Read\n{file}"), entry(1, text="Done it.", thought="Deep thought")]
        )
        await pilot.pause()
        first, second = app.query(MessageView)
        assert "▸ file notes.txt (13 bytes)" in app.screen_text()
        await pilot.click(first, offset=(5, 2))
        await pilot.pause()
        assert "secret words" in app.screen_text() and "▾ file notes.txt" in app.screen_text()
        assert app.chosen == ["0"]
        await pilot.click(second, offset=(5, 1))
        await pilot.pause()
        assert "Deep thought" in app.screen_text()
        assert app.chosen == ["0", "1"]
        app.transcript.unchoose()
        await pilot.mouse_down(second, offset=(2, 4))
        await pilot.hover(second, offset=(6, 4))
        await pilot.mouse_up(second, offset=(6, 4))
        await pilot.pause()
        assert app.chosen == ["0", "1", None]
        assert app.screen.get_selected_text() == "Done "


async def test_selected_text_is_what_was_said_not_what_was_broken() -> None:
    app = TranscriptApp()
    line = "A long line that has to be broken at this width because it is too long for it"
    async with app.run_test(size=(40, 24)) as pilot:
        await app.transcript.show([entry(1, text=f"- {line}\n\n```py\nx = 1\n```", metrics=FIGURES)])
        await pilot.pause()
        view = app.query_one(MessageView)
        assert len(rows(view)) > 5
        app.screen.selections = {view: Selection(Offset(0, 1), None)}
        await pilot.pause()
        assert app.screen.get_selected_text() == f"{line}\n\n\nx = 1"  # language and figures left out
        # a cell of the second line of the item, and one of its indentation
        widget, offset = app.screen.get_widget_and_offset_at(view.region.x + 4, view.region.y + 2)
        assert widget is view and offset == Offset(line.index("at this"), 1)
        _, offset = app.screen.get_widget_and_offset_at(view.region.x + 1, view.region.y + 2)
        assert offset == Offset(line.index("at this"), 1)


async def test_thoughts_fold_and_unfold_all_together() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([entry(1, text="Yes.", thought="Because it\nis so.", thought_s=1.0)])
        app.transcript.toggle_thinking()
        await pilot.pause()
        assert "▾ thought 1.0 s\n    Because it\n    is so." in app.screen_text()
        app.transcript.toggle_thinking()
        await pilot.pause()
        assert "▸ thought 1.0 s\n  Yes." in app.screen_text()


async def test_a_very_long_prompt_shows_its_start_until_it_is_unfolded() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([entry(0, text="\n".join(f"line {number}" for number in range(1_000)))])
        await pilot.pause()
        assert "▸ 8,419 more characters" in app.screen_text() and "line 59" in app.screen_text()
        assert "line 60" not in app.screen_text()
        app.transcript.toggle_thinking()
        await pilot.pause()
        assert "line 999" in app.screen_text()


async def test_words_are_found_in_all_messages_and_marked() -> None:
    app = TranscriptApp()
    entries = talk(60, "Number {} is here.")
    entries[3] = entry(3, text="A **needle** and a NEEDLE.")
    entries[58] = entry(58, text="One more needle.")
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.transcript
        await transcript.show(entries)
        await pilot.pause()
        assert transcript.find("needle") == (3, 3)
        await pilot.pause()
        assert "One more needle." in app.screen_text()
        plain = app.query(MessageView)[-2].render_line(1)
        assert any(segment.style and segment.style.reverse for segment in plain)
        assert transcript.find("needle") == (1, 3)  # on to the first
        await until(pilot, lambda: "A needle and a NEEDLE." in app.screen_text())
        assert transcript.find("needle") == (2, 3)
        assert transcript.find("needle", -1) == (1, 3)
        assert transcript.find("needle", -1) == (3, 3)
        await until(pilot, lambda: "One more needle." in app.screen_text())
        assert transcript.find("no such") == (0, 0)
        assert transcript.find("") == (0, 0)
        await pilot.pause()
        line = next(view for view in app.query(MessageView) if view.entry.message.id == "58").render_line(1)
        assert not any(segment.style and segment.style.reverse for segment in line)


async def test_a_message_is_replaced_in_its_place() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        entries = talk(30)
        await app.transcript.show(entries)
        await app.transcript.replace(replace(entries[28], siblings=2))
        changed = replace(entries[3], message=replace(entries[3].message, text="Changed."))
        await app.transcript.replace(changed)
        await app.transcript.replace(entry(99, text="of another chat"))
        await pilot.pause()
        assert "‹1/2›" in app.screen_text()
        assert app.transcript.entries[3] is changed and len(app.transcript.entries) == 30


async def test_a_reply_under_way_goes_on_when_its_siblings_change() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.begin(entry(1, state="partial"))
        app.transcript.feed("One")
        await until(pilot, lambda: "One" in app.screen_text())
        await app.transcript.replace(entry(1, state="partial", position=2, siblings=2))
        app.transcript.feed(", two.")
        await until(pilot, lambda: "One, two." in app.screen_text())
        assert "‹2/2›" in app.screen_text()


async def test_a_branch_that_shares_messages_keeps_their_widgets() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        entries = talk(30)
        await app.transcript.show(entries)
        kept = list(app.query(MessageView))[:-1]
        other = entry(130, role="assistant", text="Another answer.", position=2, siblings=2)
        await app.transcript.show([*entries[:-1], other])
        await pilot.pause()
        assert list(app.query(MessageView))[:-1] == kept
        assert "Another answer." in app.screen_text() and "Message 29 says" not in app.screen_text()
        await app.transcript.show(talk(2, "Chat of its own {}."))
        await pilot.pause()
        assert [view.entry.message.id for view in app.query(MessageView)] == ["0", "1"]
        assert "Chat of its own 1." in app.screen_text()


async def test_a_reply_goes_on_where_it_was_cut() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([entry(0, text="Go"), entry(1, text="First half, ", state="length")])
        await app.transcript.begin(entry(1, text="First half, ", state="partial"))
        app.transcript.feed("second half.")
        await until(pilot, lambda: "First half, second half." in app.screen_text())
        assert len(app.query(MessageView)) == 2
        await app.transcript.show([entry(0, text="Go")])  # another branch while it streams
        app.transcript.feed("too late")
        await app.transcript.finish(entry(1, text="First half, second half."))
        await pilot.pause()
        assert "half" not in app.screen_text()


async def test_a_long_evening_does_not_pile_up_widgets() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show(talk(2))
        for number in range(2, 140, 2):
            await app.transcript.append(entry(number, text="And?"))
            await app.transcript.begin(entry(number + 1, state="partial"))
            await app.transcript.finish(entry(number + 1, text="So."))
        await pilot.pause()
        assert len(app.query(MessageView)) <= 62
        assert len(app.transcript.entries) == 140


async def test_a_model_cannot_write_to_the_terminal() -> None:
    app = TranscriptApp()
    evil = "a\x1b[2J b\x1b]0;title\x07 c\u202ed [x](http://e.f/\x1b]8;;) `\x1b[1m`\n\n```\x1b[5m\n\x9b1m\r\n```\n"
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([entry(0, text=evil), entry(1, text=evil, thought=evil, model=evil)])
        app.transcript.toggle_thinking()
        await app.transcript.begin(entry(3, state="partial"))
        app.transcript.feed("", evil)
        app.transcript.feed(evil)
        await until(pilot, lambda: app.screen_text().count("␛[1m") >= 1)
        for view in app.query(MessageView):
            for y in range(view.size.height):
                for segment in view.render_line(y):
                    assert not set(segment.text) & set("\x00\x07\x1b\x9b\r\n\u202e")
                    link = segment.style.link if segment.style is not None else None
                    assert not set(link or "") & set("\x07\x1b\x9b\u202e")


async def test_long_code_gets_its_colours_beside_the_event_loop() -> None:
    app = TranscriptApp()
    code = "```python\n" + "def function(value): return 12\n" * 300 + "```"
    async with app.run_test(size=(80, 24)) as pilot:
        await app.transcript.show([entry(1, text=code)])
        view = app.query_one(MessageView)

        def coloured() -> bool:
            strip = view.render_line(view.size.height - 1)
            return (
                len({segment.style.color for segment in strip if segment.style and segment.text.strip()}) > 2
            )

        await until(pilot, coloured)


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark"])
async def test_another_theme_recolours_what_is_there(theme: str) -> None:
    app = TranscriptApp()
    async with app.run_test(size=(60, 20)) as pilot:
        await app.transcript.show([entry(1, text="# Title\n\n`code` and text\n\n> quote")])
        await pilot.pause()
        view = app.query_one(MessageView)
        before = [segment.style.color for segment in view.render_line(1) if segment.style]
        app.theme = theme
        await until(
            pilot, lambda: [segment.style.color for segment in view.render_line(1) if segment.style] != before
        )


def test_the_transcript_starts_without_parser_and_lexers(run_python) -> None:  # type: ignore[no-untyped-def]
    assert Path(sys.executable).exists()
    late = "('markdown_it', 'pygments', 'textual.widgets._markdown', 'mlx', 'numpy')"
    code = f"import sys, macllm_tui.widgets.transcript; print([m for m in {late} if m in sys.modules])"
    assert run_python(code).strip() == "[]"
