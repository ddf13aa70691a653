"""The line over the prompt that finds words in the chat."""

from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static


class FindBar(Horizontal):
    """Words, how many there are, and which is shown. Hidden until :meth:`open`."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("enter,down", "next", "next"),
        Binding("shift+enter,up", "previous", "previous"),
        Binding("escape", "close", "close"),
    ]
    DEFAULT_CSS = """
    FindBar {
        display: none;
        height: 1;
        background: $panel;
        & > .find--name { width: auto; padding: 0 1; color: $text-muted; }
        & > Input { width: 1fr; height: 1; border: none; padding: 0; background: $panel; }
        & > Input:focus { border: none; background-tint: $foreground 0%; }
        & > .find--count { width: auto; padding: 0 1; color: $text-muted; }
    }
    """

    @dataclass
    class Find(Message):
        """The words to find, and whether the next (1) or the one before (-1)."""

        words: str
        step: int

    class Closed(Message):
        """The bar is gone."""

    def compose(self) -> ComposeResult:
        """Name, input, count."""
        yield Static("find", classes="find--name")
        yield Input(placeholder="words of this chat", compact=True)
        yield Static("", classes="find--count", markup=False)

    def open(self, words: str = "") -> None:
        """Shows the bar, with ``words`` or those of the last time chosen, and takes the keys."""
        self.display = True
        field = self.query_one(Input)
        if words and words != field.value:
            field.value = words  # its change is what finds them
        elif field.value:
            self._find(1)
        field.focus()
        field.action_select_all()

    def show_count(self, which: int, total: int) -> None:
        """Says ``3 of 12``."""
        words = self.query_one(Input).value.strip()
        said = "" if not words else "not found" if not total else f"{which} of {total}"
        self.query_one(".find--count", Static).update(said)

    def action_next(self) -> None:
        """To the next place."""
        self._find(1)

    def action_previous(self) -> None:
        """To the place before."""
        self._find(-1)

    def action_close(self) -> None:
        """Hides the bar; the words stay in it."""
        self.display = False
        self.post_message(self.Closed())

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.display:
            self._find(1)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_next()

    def _find(self, step: int) -> None:
        words = self.query_one(Input).value.strip()
        if not words:
            self.show_count(0, 0)
        self.post_message(self.Find(words, step))
