"""The bottom line: the keys of what can be done now, from the table of actions, as many as there is room for."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from textual.content import Content
from textual.events import Click
from textual.widget import Widget

from macllm_tui.actions import ACTIONS, BY_ID, Action, Place
from macllm_tui.bindings import keys_in_force, short_key_name

_ALWAYS = ("help", "quit")  # whoever is lost finds these, however narrow it is
_GAP = "  "


class Hint(NamedTuple):
    """A key and what it does."""

    id: str
    key: str
    title: str

    @property
    def width(self) -> int:
        """Columns."""
        return cell_len(self.key) + 1 + cell_len(self.title)


class Footer(Widget):
    """Follows the focus: other keys stand there while a message is chosen. A click does what the key does."""

    DEFAULT_CSS = """
    Footer {
        width: 1fr; height: 1; padding: 0 1; text-wrap: nowrap;
        background: $footer-background; color: $footer-description-foreground;
    }
    """
    can_focus = False

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _screen: self.refresh())

    def render(self) -> Content:
        return Content(_GAP).join(
            Content.assemble((hint.key, "bold $footer-key-foreground"), f" {hint.title}")
            for hint in self._hints()
        )

    async def on_click(self, event: Click) -> None:
        """Does what the hint under the mouse says, as its key would."""
        end = self.content_region.x - self.region.x
        for hint in self._hints():
            begin, end = end, end + hint.width
            if begin <= event.x < end:
                await self.screen.run_action(f"do('{hint.id}')")
            end += len(_GAP)

    def _hints(self) -> list[Hint]:
        return hints(self._place(), keys_in_force(self.app), self.content_size.width)

    def _place(self) -> Place:
        """Where keys go: to a chosen message, if its own bindings are the ones in force."""
        active = {each.binding.id for each in self.screen.active_bindings.values()}
        chosen = any(action.place == "message" and action.id in active for action in ACTIONS)
        return "message" if chosen else "prompt"


def hints(place: Place, keys: Mapping[str, str], width: int) -> list[Hint]:
    """What the footer shows, the first in the table first; help and quit always, at the end."""
    wanted = [_hint(action, keys) for action in ACTIONS if _belongs(action, place)]
    always = [_hint(BY_ID[id_], keys) for id_ in _ALWAYS]
    room = width - _width(always)
    shown = []
    for hint in wanted:
        if hint.key and hint.id not in _ALWAYS and room >= hint.width + len(_GAP):
            room -= hint.width + len(_GAP)
            shown.append(hint)
    return [*shown, *always]


def _belongs(action: Action, place: Place) -> bool:
    if place == "message":
        return action.place == "message" or action.id == "stop"
    return action.footer and action.place != "message"


def _hint(action: Action, keys: Mapping[str, str]) -> Hint:
    """With its first key, or its slash command where it has none."""
    first = keys[action.id].partition(",")[0]
    key = short_key_name(first) if first else action.slash.partition(" ")[0] if action.id in _ALWAYS else ""
    return Hint(action.id, key, action.title)


def _width(shown: Sequence[Hint]) -> int:
    return sum(hint.width for hint in shown) + len(_GAP) * max(len(shown) - 1, 0)
