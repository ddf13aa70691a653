"""The small questions: yes or no, one of several, one line of text, and what to do when the context is full."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from textual import on
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from macllm_tui.drawers import Drawer


class Confirm(Drawer[bool]):
    """Asks before something that cannot be taken back. ``yes`` says what is done: ``delete``."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("enter,y", "yes", "yes"),
        Binding("escape,n", "leave", "no, leave it"),
    ]
    DEFAULT_CSS = """
    Confirm { & > #drawer { width: 60; border: round $warning; } & #question { height: auto; } }
    """

    def __init__(self, question: str, yes: str = "yes") -> None:
        super().__init__()
        self._question = question
        self._yes = yes

    def content(self) -> Iterable[Widget]:
        """The question."""
        yield Static(self._question, id="question", markup=False)

    def keys(self) -> list[tuple[str, str]]:
        """The first says what is done."""
        (key, _), *others = super().keys()
        return [(key, self._yes), *others]

    def action_yes(self) -> None:
        """Closes with True."""
        self.dismiss(True)

    def action_leave(self) -> None:
        """Closes with False."""
        self.dismiss(False)


class Choose(Drawer[str]):
    """One of several things: gives the id of the one chosen. ``current`` is where the choice stands first."""

    BINDINGS: ClassVar[list[Any]] = [Binding("enter", "choose", "choose")]
    DEFAULT_CSS = """
    Choose {
        & > #drawer { width: 60; }
        & OptionList { max-height: 60vh; }
        & #sentence { height: auto; margin-bottom: 1; display: none; }
    }
    """

    def __init__(self, title: str, options: Mapping[str, str], current: str = "", sentence: str = "") -> None:
        super().__init__()
        self.heading = title
        self._options = options
        self._current = current
        self._sentence = sentence

    def content(self) -> Iterable[Widget]:
        """The list."""
        sentence = Static(self._sentence, id="sentence", markup=False)
        sentence.display = bool(self._sentence)
        yield sentence
        yield OptionList(*(Option(text, id=id_) for id_, text in self._options.items()), markup=False)

    def on_mount(self) -> None:
        """The choice stands on the current one."""
        ids = list(self._options)
        self.query_one(OptionList).highlighted = ids.index(self._current) if self._current in ids else 0

    def action_choose(self) -> None:
        """Takes the highlighted one."""
        self.query_one(OptionList).action_select()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(event.option_id)


class ContextChoice(Choose):
    """What to do when the conversation has outgrown the context: ``drop``, ``summarise`` or ``stop``."""

    def __init__(self, sentence: str) -> None:
        options = {
            "drop": "leave out the oldest turns, in this chat from now on",
            "summarise": "have the model summarise the oldest turns",
            "stop": "stop here and change nothing",
        }
        super().__init__("The context is full", options, sentence=sentence)


class TextInput(Drawer[str]):
    """One line of text: gives it without the space around it."""

    BINDINGS: ClassVar[list[Any]] = [Binding("enter", "take", "take it")]
    DEFAULT_CSS = """
    TextInput > #drawer { width: 60; }
    """

    def __init__(self, title: str, value: str = "", placeholder: str = "") -> None:
        super().__init__()
        self.heading = title
        self._value = value
        self._placeholder = placeholder

    def content(self) -> Iterable[Widget]:
        """The line."""
        yield Input(self._value, placeholder=self._placeholder, compact=True)

    def action_take(self) -> None:
        """Gives the text, if there is one."""
        text = self.query_one(Input).value.strip()
        if text:
            self.dismiss(text)
        else:
            self.say("It is empty; type something, or leave with esc.")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_take()

    @on(Input.Changed)
    def _changed(self) -> None:
        self.say("")
