"""The prompt: a text that grows as it is typed, commands that complete themselves, files, the person's own editor."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, cast

from rich.text import Text
from textual import events, on
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.app import SuspendNotSupported
from textual.binding import Binding
from textual.document._document import EditResult, Location, Selection
from textual.document._edit import Edit
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static, TextArea

from macllm.errors import InputError, MacllmError
from macllm_tui import attachments, editor, slash
from macllm_tui.bindings import bindings
from macllm_tui.folds import Folds, clean
from macllm_tui.widgets.completions import Completions, paths


class _Extra(StrEnum):
    """A key that Textual's table of sequences lacks: it would read option+Enter as Enter, which sends."""

    ALT_ENTER = "alt+enter"


cast(dict[str, Any], ANSI_SEQUENCES_KEYS).setdefault("\x1b\r", (_Extra.ALT_ENTER,))

_OWN = ("send", "newline", "edit_last")  # actions done here; the screen's "do" does the others


def _bindings() -> list[Binding]:
    """Those of the table's place "prompt"."""
    return [
        binding if binding.id in _OWN else replace(binding, action=f"screen.do('{binding.id}')")
        for binding in bindings("prompt")
    ]


class PromptCount(Static):
    """How many tokens the prompt has, at its right: ``count.update("14 tok")``."""

    DEFAULT_CSS = """
    PromptCount { width: auto; height: 1; padding: 0 1; color: $text-muted; text-align: right; }
    """


class PromptArea(TextArea):
    """Where one writes. Sent, it is empty; who cannot take what was submitted gives it back.

    ``text`` is always the whole text; long pieces are shown as markers (see :mod:`macllm_tui.folds`).
    ``offers`` are the values of arguments by slash command, for completion: ``{"theme": ("paper", ...)}``.
    """

    BINDINGS: ClassVar[list[Any]] = _bindings()
    COMPONENT_CLASSES: ClassVar[set[str]] = {"prompt--fold"}
    DEFAULT_CSS = """
    PromptArea {
        height: auto;
        max-height: 8;
        border: none;
        border-left: outer $border-blurred;
        padding: 0 1;
        background: transparent;
        scrollbar-size-vertical: 1;
        &:focus { border: none; border-left: outer $primary; }
        & .text-area--cursor-line { background: transparent; }
        & .text-area--placeholder { color: $foreground-muted; }
        & .prompt--fold { color: $text-accent; text-style: italic; }
    }
    """

    @dataclass
    class Submitted(Message):
        """The text is to be sent."""

        text: str

    @dataclass
    class SlashCommand(Message):
        """A command was given: the id of its action, and its argument."""

        name: str
        argument: str

    class EditLast(Message):
        """The last message is to be edited: up in an empty prompt."""

    def __init__(self, text: str = "", *, id: str | None = None) -> None:  # noqa: A002 - as every widget's
        self._folds = Folds()
        self._completions = Completions(self._take)
        self._offered = ""  # the text that the list was made for
        self.offers: Mapping[str, Sequence[str]] = {}
        super().__init__(
            text, id=id, highlight_cursor_line=False, placeholder="Ask something, or / for commands"
        )

    async def on_mount(self) -> None:
        """The list lies over the screen: it belongs to no row of it."""
        await self.screen.mount(self._completions)

    def on_resize(self) -> None:
        """The count beside it grew: TextArea wraps its lines anew, but draws only those that are new."""
        self.refresh()

    # -- the text and its markers ------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """All of it, also what markers stand for."""
        return self._folds.expand(self.document.text)

    @text.setter
    def text(self, value: str) -> None:
        self.load_text(value)

    @property
    def selected_text(self) -> str:
        """What is selected, also what markers in it stand for."""
        return self._folds.expand(super().selected_text)

    def load_text(self, text: str) -> None:
        """Another text altogether, with the cursor at its end and nothing to undo."""
        super().load_text(self._folds.refold(clean(text)))
        self.move_cursor(self.document.end)
        self._offer()

    def edit(self, edit: Edit) -> EditResult:
        """Every insertion and deletion comes here: markers go whole, and long texts become some."""
        start, end = self._whole(edit.top)[0], self._whole(edit.bottom)[1]
        text = self._folds.fold_long(clean(edit.text))
        if (start, end, text) != (edit.top, edit.bottom, edit.text):
            edit = Edit(text, start, end, edit.maintain_selection_offset)
        result = super().edit(edit)
        self._offer()
        return result

    def validate_selection(self, selection: Selection) -> Selection:
        """The cursor never stands inside a marker."""
        return Selection(self._outside(selection.start), self._outside(selection.end))

    def get_line(self, line_index: int) -> Text:
        """A line with its markers in their colour."""
        line = super().get_line(line_index)
        for start, end in self._folds.spans(line.plain):
            line.stylize(self.get_component_rich_style("prompt--fold", partial=True), start, end)
        return line

    def action_cut(self) -> None:
        """What a marker stood for is cut, not its name."""
        super().action_cut()
        if (whole := self._folds.expand(self.app.clipboard)) != self.app.clipboard:
            self.app.copy_to_clipboard(whole)

    def _whole(self, location: Location) -> tuple[Location, Location]:
        """The two ends of the marker that ``location`` is inside of, else itself twice."""
        row, column = location
        line = self.document[row] if row < self.document.line_count else ""
        for start, end in self._folds.spans(line):
            if start < column < end:
                return (row, start), (row, end)
        return location, location

    def _outside(self, location: Location) -> Location:
        start, end = self._whole(location)
        was = self.selection.end
        if was <= start or was >= end:  # it came from one side and goes on to the other
            return end if was <= start else start
        return start if location[1] - start[1] < end[1] - location[1] else end

    # -- keys --------------------------------------------------------------------------------------------

    async def _on_key(self, event: events.Key) -> None:
        """The list's keys while it is open, then the prompt's own, here and now.

        Textual would send a bound key round by the screen and the app, while the characters typed after it go
        straight into the text: typed fast, the two change places.
        """
        if self._completions.offers and self._complete(event.key):
            event.stop()
            event.prevent_default()
            return
        active = None if event.is_printable else self.screen.active_bindings.get(event.key)
        own = active is not None and active.node is self and active.enabled
        if active is not None and own and await self.app.run_action(active.binding.action, self):
            event.stop()
            event.prevent_default()
        elif event.key == "enter":  # remapped: it is no text all the same
            event.prevent_default()
        elif event.key == "up":  # remapped: the cursor still moves
            event.stop()
            event.prevent_default()
            self.action_cursor_up()

    def action_send(self) -> None:
        """Posts what was written, as text or as a command, and begins anew: what is typed next is another text."""
        text = self.text
        if not text.strip():
            return
        try:
            command = slash.parse(text)
        except InputError as error:
            self.app.notify(str(error), severity="error", markup=False)
            return
        self.text = ""
        if command is None:
            self.post_message(self.Submitted(text.lstrip("\n").rstrip()))
        else:
            self.post_message(self.SlashCommand(command.action.id, command.argument))

    def give_back(self, text: str) -> None:
        """Puts a text that could not be taken before what was typed since."""
        self.text = text + self.text

    def action_newline(self) -> None:
        """Begins a new line."""
        self._replace_via_keyboard("\n", *self.selection)

    def action_edit_last(self) -> None:
        """In an empty prompt asks for the last message; else moves the cursor."""
        if self.document.text:
            self.action_cursor_up()
        else:
            self.post_message(self.EditLast())

    # -- what comes from elsewhere -----------------------------------------------------------------------

    async def insert_file(self, path: Path | str) -> None:
        """Puts a text file where the cursor is. Raises InputError where it cannot be one."""
        path = attachments.path_from(path) if isinstance(path, str) else path
        block = clean(await asyncio.to_thread(attachments.attach, path))
        start, end = sorted(self.selection)
        marker = self._folds.fold(block, path.name)
        self.history.checkpoint()  # undone by itself
        before = "\n" if start[1] else ""
        result = self.replace(f"{before}{marker}\n", start, end, maintain_selection_offset=False)
        self.history.checkpoint()
        self.move_cursor(result.end_location)
        self.focus()

    async def edit_in_editor(self) -> None:
        """Opens the text in $VISUAL or $EDITOR. Raises MacllmError where there is none or it fails."""
        arguments = editor.command()
        before = self.text
        try:
            with self.app.suspend():
                after: str | MacllmError
                try:
                    after = editor.edit(before, arguments)  # blocks: nothing may draw meanwhile
                except MacllmError as error:
                    after = error  # the terminal comes back first
        except SuspendNotSupported:
            raise MacllmError("an editor cannot be opened here; it needs a terminal of its own") from None
        if isinstance(after, MacllmError):
            raise after
        if after != before:
            self.history.checkpoint()
            self.replace(
                self._folds.refold(clean(after)), (0, 0), self.document.end, maintain_selection_offset=False
            )
            self.history.checkpoint()
        self.focus()

    # -- completion --------------------------------------------------------------------------------------

    @on(TextArea.Changed)
    def _offer(self) -> None:
        """Offers what the text may become, at once: the next key may already be Enter."""
        text = self.document.text
        if text == self._offered:
            return
        self._offered = text
        if not text.startswith("/"):
            self._hide()
            return
        name = text[1:].partition(" ")[0]
        if " " in text and name in self.offers:
            self._show(slash.offered(text, name, self.offers[name]))
        elif (path := slash.path_of(text)) is not None:
            self._hide()
            self.run_worker(self._offer_paths(text, path), group="paths", exclusive=True)
        else:
            self._show(slash.completions(text))

    async def _offer_paths(self, text: str, path: str) -> None:
        found = await asyncio.to_thread(paths, path, text.removesuffix(path))
        if self.document.text == text:
            self._show(found)

    def _show(self, found: Sequence[slash.Completion]) -> None:
        text = self.document.text
        done = len(found) == 1 and found[0].text == text  # nothing is left to complete
        if not self.is_mounted or not self._completions.is_attached:
            return
        row = self.parent if isinstance(self.parent, Widget) else self
        width = row.region.right - self.region.x  # over the count beside it too
        self._completions.offer(() if done else found, self.region, width)

    def _hide(self) -> None:
        if self._completions.offers:
            self._completions.offer((), self.region, 0)

    def _complete(self, key: str) -> bool:
        """Does what a key does in the open list; False where it is none of the list's."""
        chosen = self._completions.chosen
        assert chosen is not None
        typed = self.document.text
        if key in ("up", "down"):
            self._completions.step(1 if key == "down" else -1)
        elif key == "escape":
            self._hide()
        elif key == "tab" or (key == "enter" and chosen.text.strip() != typed.strip()):
            self._take(chosen)
            if key == "enter" and chosen.runs:
                self.action_send()
        else:
            self._hide() if key == "enter" else None
            return False
        return True

    def _take(self, chosen: slash.Completion) -> None:
        self.replace(chosen.text, (0, 0), self.document.end, maintain_selection_offset=False)
        self.move_cursor(self.document.end)
        self.focus()

    def on_blur(self) -> None:
        """Whoever goes elsewhere does not complete."""
        self._hide()
