"""An app that is nothing but a transcript, and messages for it."""

import asyncio
from collections.abc import Callable
from typing import Any

from textual.app import App, ComposeResult
from textual.pilot import Pilot

from macllm.chats.records import StoredMessage
from macllm_tui.widgets.transcript import Entry, Transcript


class TranscriptApp(App[None]):
    """Shows one transcript and keeps the messages it posts."""

    ENABLE_COMMAND_PALETTE = False

    def __init__(self) -> None:
        super().__init__()
        self.chosen: list[str | None] = []

    def compose(self) -> ComposeResult:
        yield Transcript(empty="Type a message. f1 shows all keys.")

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    def on_transcript_chosen(self, event: Transcript.Chosen) -> None:
        self.chosen.append(event.entry and event.entry.message.id)

    def screen_text(self) -> str:
        """What the terminal shows."""
        strips = self.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def entry(number: int, role: str = "", text: str = "", **fields: Any) -> Entry:
    """A message; without a role, a question (even numbers) or a reply (odd)."""
    role = role or ("assistant" if number % 2 else "user")
    position, siblings = fields.pop("position", 1), fields.pop("siblings", 1)
    fields = {"model": "mlx-community/Qwen3-8B-4bit" if role == "assistant" else "", **fields}
    message = StoredMessage(str(number), "chat", None, role, text, **fields)
    return Entry(message, position, siblings)


def talk(count: int, text: str = "Message {} says *little*.\n\nAnd then a little more.") -> list[Entry]:
    """A chat of so many messages."""
    return [entry(number, text=text.format(number)) for number in range(count)]


async def until(pilot: Pilot[None], true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for a condition, however slow the machine is."""
    end = asyncio.get_running_loop().time() + seconds
    while not true():
        assert asyncio.get_running_loop().time() < end, "waited in vain"
        await pilot.pause(0.01)
    await pilot.pause()
