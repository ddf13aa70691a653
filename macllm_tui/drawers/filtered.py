"""A drawer with words on top and what they find below, as one types."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from textual import events, on
from textual.binding import Binding
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from macllm.errors import MacllmError
from macllm_tui.drawers import Drawer

T = TypeVar("T")

QUIET_S = 0.08  # of the keyboard before the store is asked


class FilteredDrawer(Drawer[T]):
    """The words keep the keys until down goes into the list; whatever is typed there goes on in the words.

    Subclasses give :meth:`find` and :meth:`take`, and may give :meth:`more`.
    """

    placeholder = ""
    BINDINGS: ClassVar[list[Any]] = [
        Binding("enter", "open", "open"),
        Binding("down", "down", "list", show=False),
        Binding("up", "up", "words", show=False),
    ]
    DEFAULT_CSS = """
    FilteredDrawer {
        & > #drawer { width: 90; height: 100%; max-height: 32; }
        & Input { margin-bottom: 1; }
        & OptionList { height: 1fr; }
        & OptionList > .option-list--option { padding: 0 1; }
        & #found { height: 1fr; color: $text-muted; display: none; padding: 0 1; }
        & #keys { margin-top: 0; }
    }
    """

    def __init__(self, words: str = "") -> None:
        super().__init__()
        self._words = words
        self._timer: Timer | None = None
        self._shown = 0

    async def find(self, words: str, offset: int) -> Sequence[Option]:
        """What the list shows from ``offset`` on; nothing where there is no more."""
        raise NotImplementedError

    def take(self, option: str) -> None:
        """What Enter on an option of this id does."""
        raise NotImplementedError

    def nothing(self, words: str) -> str:
        """The sentence where nothing is found."""
        raise NotImplementedError

    def content(self) -> Iterable[Widget]:
        """Words and list."""
        # typing goes on in the words where it came back to them, so that focus must not select them
        yield Input(self._words, placeholder=self.placeholder, compact=True, select_on_focus=False)
        yield OptionList(markup=False)
        yield Static("", id="found", markup=False)

    @property
    def words(self) -> str:
        """What is looked for."""
        return self.query_one(Input).value.strip()

    @property
    def listing(self) -> OptionList:
        """What was found."""
        return self.query_one(OptionList)

    def on_mount(self) -> None:
        """The words have the keys."""
        field = self.query_one(Input)
        field.focus()
        field.action_select_all()
        self.refresh_soon(0)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.refresh_soon(QUIET_S)

    def refresh_soon(self, quiet_s: float, at: int = 0) -> None:
        """Asks the store when the keyboard is quiet; an answer to older words is dropped."""
        if self._timer is not None:
            self._timer.stop()
        if quiet_s:
            self._timer = self.set_timer(quiet_s, lambda: self._refill_soon(at))
        else:
            self._refill_soon(at)

    def _refill_soon(self, at: int) -> None:
        self.run_worker(self.refill(at), group="find", exclusive=True)

    async def refill(self, at: int = 0) -> None:
        """Fills the list anew, with the choice at ``at``."""
        words = self.words
        try:
            options = await self.find(words, 0)
        except MacllmError as error:
            self.say(str(error))
            return
        self.listing.set_options(options)
        self._shown = len(options)
        found = bool(options)
        self.listing.display = found
        empty = self.query_one("#found", Static)
        empty.display = not found
        empty.update("" if found else self.nothing(words))
        if found:
            self._choose(at)
        else:
            self.query_one(Input).focus()

    def _choose(self, at: int) -> None:
        """The choice at the first option from ``at`` on that can be chosen, else the last before it."""
        after = [index for index, option in enumerate(self.listing.options) if not option.disabled]
        self.listing.highlighted = next(
            (index for index in after if index >= at), after[-1] if after else None
        )

    @on(OptionList.OptionHighlighted)
    async def _near_the_end(self, event: OptionList.OptionHighlighted) -> None:
        """What comes after is fetched when it is near."""
        event.stop()
        if event.option_index < self._shown - 20 or self._shown < 20:
            return
        shown, self._shown = self._shown, 0  # not twice
        try:
            more = await self.find(self.words, shown)
        except MacllmError as error:
            self.say(str(error))
            return
        self.listing.add_options(more)
        self._shown = shown + len(more) if more else 0

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_open()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id is not None:
            self.take(event.option_id)

    def action_open(self) -> None:
        """Takes the chosen one."""
        option = self.listing.highlighted_option
        if self.listing.display and option is not None and option.id is not None:
            self.take(option.id)

    def action_down(self) -> None:
        """Into the list, one on: the first is chosen already."""
        if self.listing.display and self.listing.option_count:
            self.listing.focus()
            self.listing.action_cursor_down()

    def action_up(self) -> None:
        """Back to the words."""
        self.query_one(Input).focus()

    def on_key(self, event: events.Key) -> None:
        """What is typed over the list goes on in the words; up from the first option leads there too."""
        if not self.listing.has_focus:
            return
        field = self.query_one(Input)
        first = next((index for index, option in enumerate(self.listing.options) if not option.disabled), 0)
        if event.key == "up" and (self.listing.highlighted or 0) <= first:
            field.focus()
        elif event.is_printable and event.character is not None and not self.is_key(event.key):
            field.focus()
            field.value += event.character
            field.cursor_position = len(field.value)
        else:
            return
        event.stop()
        event.prevent_default()

    def is_key(self, key: str) -> bool:
        """Whether a letter is a key of the list."""
        return any(key in binding.key.split(",") for binding in self.BINDINGS)
