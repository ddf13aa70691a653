"""The list over the prompt that offers commands, settings and paths while they are typed."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from textual.content import Content
from textual.geometry import Region
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from macllm_tui.slash import Completion

_MOST_PATHS = 200
_ROWS = 8


class Completions(OptionList, can_focus=False):
    """Shown while it has something to offer. The prompt keeps the keys and moves the choice."""

    DEFAULT_CSS = """
    Completions {
        display: none;
        overlay: screen;
        position: absolute;
        constrain: inside inside;
        height: auto;
        border: none;
        padding: 0;
        background: $panel;
        scrollbar-size-vertical: 1;
        text-wrap: nowrap;
        text-overflow: ellipsis;
        & > .option-list--option { padding: 0 1; }
        & > .option-list--option-highlighted {
            color: $block-cursor-foreground;
            background: $block-cursor-background;
            text-style: $block-cursor-text-style;
        }
    }
    """

    def __init__(self, take: Callable[[Completion], None]) -> None:
        super().__init__()
        self._take = take  # what a click does
        self.offers: Sequence[Completion] = ()

    @property
    def chosen(self) -> Completion | None:
        """The one that Tab takes; None where nothing is offered."""
        return self.offers[self.highlighted or 0] if self.offers else None

    def offer(self, offers: Sequence[Completion], prompt: Region, width: int) -> None:
        """Shows ``offers`` directly over the prompt, ``width`` columns wide, or hides where there are none."""
        self.offers = offers
        self.display = bool(offers)
        if not offers:
            return
        column = max(len(each.label) for each in offers) + 2
        self.set_options(
            Option(Content.assemble((each.label.ljust(column), "bold"), each.help)) for each in offers
        )
        self.highlighted = 0
        rows = max(1, min(len(offers), _ROWS, prompt.y))
        self.styles.max_height = rows
        self.styles.width = width
        self.styles.offset = (prompt.x, prompt.y - rows)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click takes one as Tab does."""
        event.stop()
        self._take(self.offers[event.option_index])

    def step(self, by: int) -> None:
        """Moves the choice, round the ends."""
        self.highlighted = ((self.highlighted or 0) + by) % len(self.offers)


def paths(typed: str, before: str) -> list[Completion]:
    """The files and folders that ``typed`` may become; ``before`` is the text that stands before it."""
    folder_text, slash, start = typed.rpartition("/")
    folder = Path(os.path.expanduser(folder_text + slash or "."))  # noqa: PTH111 - keeps "./" and "/" as typed
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                wanted = entry.name.casefold().startswith(start.casefold())
                if wanted and entry.name.startswith(".") == start.startswith("."):
                    found.append((entry.name, entry.is_dir()))
    except OSError:
        return []
    found.sort(key=lambda each: (not each[1], each[0].casefold()))
    names = [name + "/" * is_folder for name, is_folder in found[:_MOST_PATHS]]
    return [Completion(f"{before}{folder_text}{slash}{name}", name) for name in names]
