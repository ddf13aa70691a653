"""The drawers with words on top: finding chats and earlier prompts, opening, deleting, and what is said of nothing."""

import time
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from simulated import until
from textual.app import App
from textual.widgets import Input, Static

from macllm.chats.async_store import AsyncStore
from macllm.chats.store import Store
from macllm_tui.drawers.choices import Confirm
from macllm_tui.drawers.filtered import FilteredDrawer
from macllm_tui.drawers.history import PromptHistory, one_line
from macllm_tui.drawers.search import ChatSearch, moment

SMALL = (60, 20)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    opened = await AsyncStore.open(tmp_path / "chats.db")
    yield opened
    await opened.close()


async def said(store: AsyncStore, title: str, question: str, answer: str) -> str:
    """A chat of two messages; the id of the second."""
    chat = await store.create(title=title)
    first = await store.add(chat.id, "user", question, parent=None)
    return (await store.add(chat.id, "assistant", answer, parent=first.id)).id


@pytest.fixture
async def chats(store: AsyncStore) -> dict[str, str]:
    """Three chats; ids of their answers by title."""
    return {
        "Metal": await said(store, "Metal", "How does a kernel start?", "A kernel starts as a grid."),
        "LoRA": await said(store, "LoRA", "Which rank?", "Rank 8 [is] enough."),
        "Soup 日本語": await said(store, "Soup 日本語", "How hot?\nAnd how long?", "Seventy degrees."),
    }


class Opened:
    """A drawer over an empty app; ``results`` is what it gave."""

    def __init__(self, drawer: FilteredDrawer[Any]) -> None:
        self.drawer = drawer
        self.results: list[Any] = []

    async def __aenter__(self) -> "Opened":
        self._running = App[None]().run_test(size=SMALL)
        self.pilot = await self._running.__aenter__()
        await self.pilot.app.push_screen(self.drawer, self.results.append)
        await self.settled()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._running.__aexit__(*error)

    async def settled(self) -> None:
        """Until the list answers the words."""
        drawer = self.drawer
        await self.pilot.pause(0.1)
        await until(self.pilot, lambda: drawer.listing.display or bool(self.sentence))
        await until(self.pilot, lambda: not any(worker.is_running for worker in drawer.workers))
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        await self.press(*text)
        await self.settled()

    @property
    def sentence(self) -> str:
        return str(self.drawer.query_one("#found", Static).render())

    @property
    def lines(self) -> list[str]:
        return [str(option.prompt) for option in self.drawer.listing.options]


async def test_recent_chats_stand_under_their_days(store: AsyncStore, chats: dict[str, str]) -> None:
    later = datetime.now().astimezone() + timedelta(days=1)
    async with Opened(ChatSearch(store, now=lambda: later)) as opened:
        assert opened.lines[0] == "yesterday"
        assert [line.split()[0] for line in opened.lines[1:]] == ["Soup", "LoRA", "Metal"]
        assert opened.drawer.query_one(Input).has_focus
        await opened.press("enter")  # the newest is chosen already
        assert opened.results == [((await store.chats(1))[0].id, None)]


async def test_words_find_messages_and_mark_them(store: AsyncStore, chats: dict[str, str]) -> None:
    async with Opened(ChatSearch(store)) as opened:
        await opened.type("rank enou")
        assert len(opened.lines) == 1
        title, snippet = opened.lines[0].split("\n")
        assert title.startswith("LoRA") and snippet == "  reply: Rank 8 [is] enough."
        prompt: Any = opened.drawer.listing.options[0].prompt
        marked = {
            prompt.plain[span.start : span.end] for span in prompt.spans if "underline" in str(span.style)
        }
        assert {text.lower() for text in marked} == {"rank", "enou"}
        await opened.press("enter")
        message = await store.message(chats["LoRA"])
        assert opened.results == [(message.chat, message.id)]


async def test_words_can_be_given_and_a_title_is_found(store: AsyncStore, chats: dict[str, str]) -> None:
    async with Opened(ChatSearch(store, words="metal")) as opened:
        assert opened.drawer.query_one(Input).value == "metal"
        assert len(opened.lines) == 1 and "\n" not in opened.lines[0]
        await opened.press("escape")
        assert opened.results == [None]


async def test_down_goes_into_the_list_and_typing_back_to_the_words(
    store: AsyncStore, chats: dict[str, str]
) -> None:
    async with Opened(ChatSearch(store)) as opened:
        drawer = opened.drawer
        await opened.press("down")
        assert drawer.listing.has_focus and drawer.listing.highlighted == 2
        await opened.press("up", "up")
        assert drawer.query_one(Input).has_focus
        await opened.press("down", "r")
        await opened.settled()
        assert drawer.query_one(Input).has_focus and drawer.words == "r"
        await opened.type("ank")
        assert len(opened.lines) == 2  # the question and the answer
        await opened.press("down", "enter")
        assert opened.results and opened.results[0] is not None


@pytest.mark.parametrize("key", ["d", "delete"])
async def test_a_chat_is_deleted_after_asking(store: AsyncStore, chats: dict[str, str], key: str) -> None:
    async with Opened(ChatSearch(store)) as opened:
        app, drawer = opened.pilot.app, opened.drawer
        await opened.press("down", key)
        await until(opened.pilot, lambda: isinstance(app.screen, Confirm))
        assert "LoRA" in str(app.screen.query_one("#question", Static).render())
        await opened.press("escape")
        await until(opened.pilot, lambda: app.screen is drawer)
        assert len(await store.chats()) == 3
        await opened.press(key)
        await until(opened.pilot, lambda: isinstance(app.screen, Confirm))
        await opened.press("enter")
        await until(opened.pilot, lambda: len(opened.lines) == 3)
        assert [chat.title for chat in await store.chats()] == ["Soup 日本語", "Metal"]
        assert drawer.listing.highlighted == 2  # the one that came after it
        assert opened.results == []


async def test_d_in_the_words_is_a_letter(store: AsyncStore, chats: dict[str, str]) -> None:
    async with Opened(ChatSearch(store)) as opened:
        await opened.type("d")
        assert opened.drawer.words == "d"
        assert not isinstance(opened.pilot.app.screen, Confirm)


async def test_nothing_there_and_nothing_found(store: AsyncStore) -> None:
    async with Opened(ChatSearch(store)) as opened:
        assert opened.sentence == "There are no chats yet. What you say is kept here."
        await opened.press("enter", "down", "d")
        assert opened.results == [] and opened.drawer.query_one(Input).has_focus
        await opened.settled()
        assert opened.sentence.startswith("Nothing was found")
    async with Opened(PromptHistory(store)) as opened:
        assert opened.sentence.startswith("Nothing was asked yet")
        await opened.type("x")
        assert opened.sentence.startswith("No earlier prompt has these words")
        await opened.press("enter")
        assert opened.results == []


async def test_ten_thousand_chats_come_by_the_page(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with_many = Store.open(path)
    with with_many.together():
        for number in range(10_000):
            chat = with_many.create(title=f"Chat {number:05}")
            with_many.add(chat.id, "user", f"question {number} about kernels", parent=None)
    with_many.close()
    store = await AsyncStore.open(path)
    try:
        async with Opened(ChatSearch(store)) as opened:
            drawer = opened.drawer
            assert len(opened.lines) < 150
            for _ in range(3):
                before = len(opened.lines)
                await opened.press("down", "end")
                await until(opened.pilot, lambda before=before: len(opened.lines) > before)
                assert drawer.listing.has_focus
            numbers = [int(line.split()[1]) for line in opened.lines if line.startswith("Chat")]
            assert numbers == list(range(9999, 9999 - len(numbers), -1)) and len(numbers) >= 400
            days = [line for line in opened.lines if not line.startswith("Chat")]
            assert len(days) == len(set(days))
            await opened.type("question 777 ")
            assert "Chat 00777" in opened.lines[0]
            started = time.perf_counter()
            await drawer.refill()
            assert time.perf_counter() - started < 2  # some 20 ms on an idle machine
    finally:
        await store.close()


async def test_an_earlier_prompt_comes_back_whole(store: AsyncStore, chats: dict[str, str]) -> None:
    async with Opened(PromptHistory(store)) as opened:
        assert opened.lines == ["How hot? ⏎ And how long?", "Which rank?", "How does a kernel start?"]
        await opened.type("hot")
        await opened.press("enter")
        assert opened.results == ["How hot?\nAnd how long?"]
    async with Opened(PromptHistory(store)) as opened:
        await opened.press("down", "down", "up", "enter")
        assert opened.results == ["Which rank?"]
    async with Opened(PromptHistory(store)) as opened:
        await opened.press("escape")
        assert opened.results == [None]


async def test_titles_and_dates_fit_their_line(store: AsyncStore) -> None:
    await said(store, "日本語のとても長いタイトル" * 6, "a\x1b[31m", "b")
    await said(store, "x" * 300, "a", "b")
    async with Opened(ChatSearch(store)) as opened:
        listing = opened.drawer.listing
        widths = {option.prompt.cell_length for option in listing.options if option.id}  # type: ignore[union-attr]
        assert len(widths) == 1 and max(widths) < listing.size.width
        assert all("…" in line for line in opened.lines[1:])


def test_a_prompt_in_one_line() -> None:
    assert one_line("  a\n\n b\x1b[0m\tc\n") == "a ⏎ b␛[0m\tc"
    assert len(one_line("x" * 100_000)) < 1000


def test_when_something_was_said() -> None:
    at = datetime(2026, 11, 3, 14, 5).astimezone()
    assert moment(at.isoformat(), date(2026, 11, 3)) == "14:05"
    assert moment(at.isoformat(), date(2026, 11, 20)) == "3 Nov"
    assert moment(at.isoformat(), date(2027, 1, 1)) == "3 Nov 2026"
