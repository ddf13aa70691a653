"""Drawers: small screens over the chat that ask for one thing and give it back, or nothing."""

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from macllm_tui.bindings import short_key_name

T = TypeVar("T")


class Drawer(ModalScreen[T]):
    """A titled box in the middle. Esc leaves it without a result; its last line lists its keys.

    Subclasses give ``heading`` and :meth:`content`.
    """

    BINDINGS: ClassVar[list[Any]] = [Binding("escape", "leave", "leave")]
    DEFAULT_CSS = """
    Drawer {
        align: center middle;
        & > #drawer {
            width: 76;
            max-width: 100%;
            height: auto;
            max-height: 100%;
            border: round $primary;
            border-title-color: $text-primary;
            border-title-style: bold;
            background: $surface;
            padding: 0 1;
        }
        & Input { background: $panel; }
        & OptionList {
            border: none; padding: 0; background: $surface; scrollbar-size-vertical: 1;
            text-wrap: nowrap; text-overflow: ellipsis;
        }
        & OptionList:focus { border: none; background-tint: $foreground 0%; }
        & #keys { height: auto; margin-top: 1; color: $text-muted; }
        & #problem { height: auto; color: $text-error; display: none; }
    }
    """

    heading = ""

    def compose(self) -> ComposeResult:
        """The box: what the drawer is for, a line for what is wrong, the keys."""
        with Vertical(id="drawer") as box:
            box.border_title = Content(self.heading)
            yield from self.content()
            yield Static("", id="problem", markup=False)
            yield Static(self._keys_line(), id="keys")

    def content(self) -> Iterable[Widget]:
        """The widgets of this drawer."""
        raise NotImplementedError

    def say(self, problem: str) -> None:
        """Shows one sentence above the keys, or none."""
        label = self.query_one("#problem", Static)
        label.update(problem)
        label.display = bool(problem)

    def action_leave(self) -> None:
        """Closes the drawer; nothing has changed."""
        self.dismiss(None)

    def keys(self) -> list[tuple[str, str]]:
        """The keys to list and what they do, from the bindings; the one that leaves is the last."""
        shown: dict[str, tuple[str, str]] = {}
        for kind in type(self).__mro__:
            for binding in vars(kind).get("BINDINGS", ()) if issubclass(kind, Drawer) else ():
                if binding.show:
                    shown.setdefault(binding.action, (binding.key.split(",")[0], binding.description))
        shown["leave"] = shown.pop("leave")
        return list(shown.values())

    def _keys_line(self) -> Content:
        parts: list[Any] = []
        for key, title in self.keys():
            parts += [(short_key_name(key), "bold $text-accent"), f" {title}  "]
        return Content.assemble(*parts)
