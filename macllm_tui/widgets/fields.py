"""Fields of a form: a name, what to fill in or choose, and below it a line of help or what is wrong."""

import asyncio
import os
from pathlib import Path
from typing import ClassVar, TypeAlias

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.style import Style
from textual.suggester import Suggester
from textual.widgets import Button, Input, Label, Static


class PathSuggester(Suggester):
    """Completes folders, and files that end in one of ``suffixes``; what has a file ``whole`` in it is complete."""

    def __init__(self, suffixes: tuple[str, ...], whole: str) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._suffixes, self._whole = suffixes, whole

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(self._complete, value) if value else None

    def _complete(self, value: str) -> str | None:
        head, slash, start = value.rpartition("/")
        folder = Path(head + slash or ".").expanduser()
        try:
            if not start and (folder / self._whole).is_file():
                return None
            with os.scandir(folder) as entries:
                found = sorted(self._named(entry) for entry in entries if entry.name.startswith(start))
        except OSError:
            return None
        name = next((name for name in found if name and (start or not name.startswith("."))), None)
        return f"{head}{slash}{name}" if name is not None else None

    def _named(self, entry: "os.DirEntry[str]") -> str:
        """With a slash for a folder; empty for what is not looked for."""
        if entry.is_dir():
            return f"{entry.name}/"
        return entry.name if entry.name.endswith(self._suffixes) else ""


class PathInput(Input):
    """An input for a path: tab takes what is suggested, and where there is nothing goes to the next field."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "complete", "complete", show=False)]

    def __init__(self, value: str, placeholder: str, suffixes: tuple[str, ...], whole: str) -> None:
        suggester = PathSuggester(suffixes, whole)
        super().__init__(value, placeholder, suggester=suggester, compact=True, select_on_focus=False)

    def action_complete(self) -> None:
        before = self.value
        self.action_end()
        self.action_cursor_right()
        if self.value == before:
            self.screen.focus_next()


class Toggle(Static, can_focus=True):
    """Yes or no, in words: space or enter changes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space,enter", "flip", "change", show=False)]
    DEFAULT_CSS = """
    Toggle { width: auto; &:focus { background: $block-cursor-background; color: $block-cursor-foreground; } }
    """
    value: reactive[str] = reactive("no")

    class Changed(Message):
        """It was changed."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self.set_reactive(Toggle.value, value)

    def render(self) -> str:
        return "\\[x] yes" if self.value == "yes" else "\\[ ] no"

    def watch_value(self) -> None:
        self.post_message(self.Changed())

    def action_flip(self) -> None:
        self.value = "no" if self.value == "yes" else "yes"

    def on_click(self) -> None:
        self.action_flip()


class Choice(Static, can_focus=True):
    """One of a few words, all in sight: left and right or space change it, as does a click."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "choose_next(1)", "next", show=False),
        Binding("left", "choose_next(-1)", "previous", show=False),
        Binding("enter", "app.focus_next", "next field", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"choice--chosen"}
    DEFAULT_CSS = """
    Choice { width: 1fr; height: auto; color: $text-muted; }
    Choice > .choice--chosen { color: $text; text-style: bold; }
    Choice:focus > .choice--chosen { background: $block-cursor-background; color: $block-cursor-foreground; }
    """
    value: reactive[str] = reactive("", layout=True)

    class Changed(Message):
        """Another was chosen."""

    def __init__(self, words: tuple[str, ...], value: str) -> None:
        super().__init__()
        self._words = words
        self.set_reactive(Choice.value, value)

    def render(self) -> Content:
        chosen = self.get_visual_style("choice--chosen")
        return Content.assemble(*(self._shown(word, chosen) for word in self._words))

    def _shown(self, word: str, chosen: Style) -> Content:
        mine = word == self.value  # in brackets too: a colour alone is not seen by all
        text = Content(f"[{word}]" if mine else f" {word} ").stylize(chosen if mine else "")
        return text.stylize(Style.from_meta({"@click": f"choose({word!r})"})) + " "

    def watch_value(self) -> None:
        self.post_message(self.Changed())

    def action_choose(self, word: str) -> None:
        self.value = word

    def action_choose_next(self, by: int) -> None:
        at = self._words.index(self.value) if self.value in self._words else -by
        self.value = self._words[(at + by) % len(self._words)]


Fill: TypeAlias = Input | Toggle | Choice | Button


class Field(Vertical):
    """One field. ``name`` is its key; :attr:`note` is help or, where ``wrong``, what to correct."""

    DEFAULT_CSS = """
    Field { height: auto; margin-bottom: 1; }
    Field > Horizontal { height: auto; }
    Field Label { width: 25; }
    Field.-focused Label { text-style: bold; color: $primary; }
    Field Input, Field PathInput { width: 1fr; background: $surface; }
    Field Button { width: auto; max-width: 1fr; }
    Field > .field--note { color: $text-muted; height: auto; padding-left: 2; }
    Field.-wrong > .field--note { color: $text-error; }
    Field.-warning > .field--note { color: $text-warning; }
    """

    class Changed(Message):
        """What is filled in changed."""

        def __init__(self, field: "Field") -> None:
            super().__init__()
            self.field = field

    def __init__(self, name: str, title: str, content: Fill, help_: str = "") -> None:
        super().__init__(id=f"field-{name}")
        self.key = name
        self.content = content
        self._title, self._help = title, help_
        self._note = Static(help_, classes="field--note", markup=False)

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(self._title)
            yield self.content
        yield self._note

    def on_descendant_focus(self) -> None:
        self.add_class("-focused")

    def on_descendant_blur(self) -> None:
        self.remove_class("-focused")

    @property
    def value(self) -> str:
        return "" if isinstance(self.content, Button) else self.content.value

    @value.setter
    def value(self, text: str) -> None:
        if not isinstance(self.content, Button):
            self.content.value = text

    @property
    def note(self) -> str:
        return str(self._note.content)

    def say(self, text: str = "", *, wrong: bool = False, warning: bool = False) -> None:
        """Shows a sentence in place of the help; nothing shows the help again."""
        mark = "✗ " if wrong else "! " if warning else ""
        note = f"{mark}{text}" if text else self._help
        if note == self.note:  # a form asks all of its fields at every key
            return
        self._note.update(note)
        self.set_class(wrong, "-wrong")
        self.set_class(warning, "-warning")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self))

    def on_toggle_changed(self, event: Toggle.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self))

    def on_choice_changed(self, event: Choice.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes to the next field, as in any form."""
        event.stop()
        self.screen.focus_next()
