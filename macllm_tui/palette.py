"""All commands by name: the actions of the table with their keys, the models used last, the colours."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from textual.app import App
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider, SearchIcon
from textual.content import Content

from macllm_tui.actions import ACTIONS, Action
from macllm_tui.bindings import key_names, keys_in_force
from macllm_tui.themes import NAMES, colourless
from macllm_tui.widgets.visible import visible


class Command(NamedTuple):
    """One line of the palette: what it says, what stands beside it, and the action with its argument."""

    words: str
    help: str
    action: str
    argument: str = ""

    @property
    def markup(self) -> str:
        """The help for Textual, which would take ``[WORDS]`` for a style."""
        return self.help.replace("[", "\\[")


class Palette(CommandPalette):
    """Textual's palette with these commands, in the theme's colours."""

    DEFAULT_CSS = """
    Palette {
        & > Vertical { margin-top: 1; background: $surface; }
        & #--input { border: round $border; background: $surface; }
        & #--input.--list-visible { border-bottom: round $border; }
        & SearchIcon { color: $primary; margin: 0 1; width: 1; }
        & CommandInput, & CommandInput:focus {
            background: $surface; color: $foreground; border: none; height: 1; padding: 0;
        }
        & CommandList {
            border: none; background: $surface; color: $foreground; padding: 0 1; max-height: 80vh;
            /* Textual reverses the line without colour, but Textual 8 does not draw parts of a widget reversed */
            & > .option-list--option-highlighted, &:nocolor > .option-list--option-highlighted {
                color: $block-cursor-foreground; background: $block-cursor-background;
                text-style: $block-cursor-text-style;
            }
        }
        & > .command-palette--help-text { color: transparent; text-style: not bold; }
    }
    """

    def __init__(self) -> None:
        super().__init__([ActionCommands], placeholder="type to find a command", id="--command-palette")

    def on_mount(self) -> None:
        self.query_one(SearchIcon).icon = "›"


def open_palette(app: App[Any]) -> None:
    """Shows it, unless it is there already."""
    if not CommandPalette.is_open(app):
        app.push_screen(Palette())


class ActionCommands(Provider):
    """Everything that ``screen.do(action, argument)`` can do; nothing on screens without it."""

    async def discover(self) -> Hits:
        for command, run in self._offered():
            yield DiscoveryHit(Content(command.words), run, command.words, command.markup)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command, run in self._offered():
            score = max(matcher.match(command.words), matcher.match(f"{command.action} {command.help}"))
            if score > 0:
                yield Hit(score, matcher.highlight(command.words), run, command.words, command.markup)

    def _offered(self) -> Iterator[tuple[Command, Callable[[], Any]]]:
        do = getattr(self.screen, "do", None)
        if do is None:
            return
        recent = getattr(getattr(self.app, "settings", None), "recent", ())
        for command in commands(keys_in_force(self.app), recent):
            yield command, partial(do, command.action, command.argument)


def commands(keys: Any, recent: Sequence[str] = ()) -> list[Command]:
    """The lines: actions as in the table, then models, then colours."""
    actions = [
        Command(_sentence(action), _beside(action, keys[action.id]), action.id)
        for action in ACTIONS
        if not _of_the_keyboard(action)
    ]
    models = [Command(f"Use {visible(name)}", f"/model {visible(name)}", "model", name) for name in recent]
    colours = [Command(f"Colours: {name}", f"/theme {name}", "theme", name) for name in NAMES]
    return [*actions, *models, *([] if colourless() else colours)]


def _of_the_keyboard(action: Action) -> bool:
    """Only makes sense while one types, or is what opened the palette."""
    return action.id == "palette" or (action.place == "prompt" and not action.slash)


def _sentence(action: Action) -> str:
    return action.help[0].upper() + action.help[1:]


def _beside(action: Action, keys: str) -> str:
    """The key, where there is one, and the slash command."""
    return "   ".join(filter(None, (key_names(keys), action.slash)))
