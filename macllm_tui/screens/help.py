"""Help: every action with its key and its slash command, every key of the screens; typing narrows it down."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from macllm_tui.actions import ACTIONS, BY_ID, Action, slash_commands
from macllm_tui.bindings import key_names, keymap
from macllm_tui.screens.help_places import place_keys
from macllm_tui.settings import settings_path

_GROUPS: Mapping[str, str] = {
    "chat": "ANYWHERE",
    "prompt": "IN THE PROMPT",
    "message": "ON A MESSAGE",
    "slash": "COMMANDS TO TYPE",
}
_KEY_COLUMN, _NARROW_COLUMN, _WIDE = 36, 20, 80  # a narrow help has the longest keys on lines of their own


class Row(NamedTuple):
    """A line of the help."""

    group: str
    left: str  # the key, or the slash command
    help: str
    words: str  # what a search looks at


class HelpScreen(ModalScreen[None]):
    """``keys`` are the person's own: those in force are shown."""

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[Any]] = [
        Binding("escape", "close", "close"),
        Binding(BY_ID["help"].key, "close", "close", priority=True, id="help"),
        Binding("up", "scroll(-1)", "scroll", priority=True),
        Binding("down", "scroll(1)", "scroll", priority=True),
        Binding("pageup", "page(-1)", "scroll", priority=True),
        Binding("pagedown", "page(1)", "scroll", priority=True),
    ]
    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        #help { width: 92; max-width: 100%; height: 100%; background: $surface; color: $foreground; }
        #title { width: 1fr; height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; }
        #search { height: 3; border: round $border; background: $surface; }
        #rows { height: 1fr; padding: 0 2; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
        #rows Static { height: auto; }
        #foot { width: 1fr; height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; }
    }
    """

    def __init__(self, keys: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._keys = keymap(keys or {}).keys
        self._rows = rows(self._keys)

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield Static(Content.styled("macllm ── help", "bold"), id="title")
            yield Input(placeholder="type to find a key or a command", id="search")
            with VerticalScroll(id="rows", can_focus=False):
                yield Static(id="text")
            yield Static(self._foot(), id="foot")

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self._show(self.query_one(Input).value))

    @on(Input.Changed, "#search")
    def _searched(self, event: Input.Changed) -> None:
        event.stop()
        self._show(event.value)

    def _show(self, words: str) -> None:
        found = matching(self._rows, words)
        if found:
            text = Content("\n").join(_lines(found, self._width(), key_names(self._keys["previous_message"])))
            if not words.strip():
                text = Content("\n\n").join([text, _own_keys()])
        else:
            text = Content(
                f"Nothing here is called “{words.strip()}”. Another word may find it; esc closes the help."
            )
        self.query_one("#text", Static).update(text)
        self.query_one("#rows").scroll_home(animate=False)

    def _width(self) -> int:
        return self.query_one("#rows").scrollable_content_region.width

    def _foot(self) -> Content:
        close = "esc"
        if self._keys["help"]:
            close += f" or {key_names(self._keys['help'])}"
        return Content.assemble(
            (close, "bold $footer-key-foreground"),
            " close  ",
            ("↑ ↓", "bold $footer-key-foreground"),
            " scroll",
        )

    def action_close(self) -> None:
        """Back to where one was."""
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        """Moves by a line."""
        self.query_one("#rows").scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        """Moves by a page."""
        place = self.query_one("#rows")
        place.scroll_relative(y=pages * max(place.size.height - 1, 1), animate=False)


def rows(keys: Mapping[str, str]) -> list[Row]:
    """All lines: each action where its key works, then each slash command, then the keys of the other screens."""
    made = [
        Row(group, key_names(keys[action.id]), action.help, _words(action, keys[action.id]))
        for group in ("chat", "prompt", "message")
        for action in ACTIONS
        if action.place == group and keys[action.id]
    ]
    typed = sorted(slash_commands().values(), key=lambda action: action.slash)
    made += [Row("slash", action.slash, action.help, _words(action, keys[action.id])) for action in typed]
    made += [
        Row(place, keys_, does, f"{place} {keys_} {does}".casefold()) for place, keys_, does in place_keys()
    ]
    return made


def matching(every: list[Row], text: str) -> list[Row]:
    """The rows that hold all of the words, in upper or lower case."""
    words = text.casefold().split()
    return [row for row in every if all(word in row.words for word in words)]


def _words(action: Action, keys: str) -> str:
    return " ".join((action.id, action.title, action.help, action.slash, key_names(keys))).casefold()


def _lines(found: list[Row], width: int, choose: str) -> Iterator[Content]:
    for group in dict.fromkeys(row.group for row in found):
        members = [row for row in found if row.group == group]
        note = f"  {choose} chooses one" if group == "message" and choose else ""
        yield Content.assemble((_GROUPS.get(group, group), "bold $primary"), (note, "$foreground-muted"))
        for row in members:
            yield from _row(row, width)
        yield Content("")


def _row(row: Row, width: int) -> Iterator[Content]:
    """The key and beside it what it does, broken there; under it where there is no room."""
    indent = _KEY_COLUMN if width >= _WIDE else _NARROW_COLUMN
    left = "  " + row.left
    beside = list(Content(row.help).wrap(max(width - indent, 10)))
    if cell_len(left) >= indent:
        yield Content.styled(left, "bold")
    else:
        yield Content.assemble((left, "bold"), " " * (indent - cell_len(left)), beside.pop(0))
    for line in beside:
        yield Content(" " * indent) + line


def _own_keys() -> Content:
    names = ", ".join(action.id for action in ACTIONS)
    return Content.assemble(
        ("YOUR OWN KEYS\n", "bold $primary"),
        f'  In {settings_path()}, as "keys": {{"new": "f9", "finetune": ""}}; "" takes a key away. '
        "They hold from the next start.\n  The names: ",
        (names, "$foreground-muted"),
    )
