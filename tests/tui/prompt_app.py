"""The prompt as the chat screen has it, in an app that keeps what it posts."""

from typing import Any

from textual import events
from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Static

from macllm_tui.widgets.completions import Completions
from macllm_tui.widgets.find_bar import FindBar
from macllm_tui.widgets.prompt import PromptArea, PromptCount


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
