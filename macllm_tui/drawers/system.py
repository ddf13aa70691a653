"""The system prompt of a chat: its text, and presets to begin from or to keep it as."""

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import OptionList, Static, TextArea
from textual.widgets.option_list import Option

from macllm.chats.async_store import AsyncStore
from macllm.chats.records import Preset
from macllm.errors import MacllmError
from macllm_tui.drawers import Drawer
from macllm_tui.drawers.choices import Confirm, TextInput
from macllm_tui.presets import BUILT_IN, merged, name_of

_NARROW = 70  # columns under which the presets stand above the text


class SystemDrawer(Drawer[str]):
    """Gives the text of the system prompt, empty for none; None when left."""

    heading = "System prompt"
    BINDINGS: ClassVar[list[Any]] = [
        Binding("ctrl+s", "apply", "use it"),
        Binding("ctrl+n", "save", "keep as preset"),
        Binding("tab", "other", "presets"),
        Binding("shift+tab", "other", "presets", show=False),
        Binding("delete,d", "delete", "delete preset", show=False),
    ]
    DEFAULT_CSS = """
    SystemDrawer {
        & > #drawer { width: 90; height: 100%; max-height: 26; }
        & #both { height: 1fr; layout: horizontal; }
        & #presets { width: 22; height: 100%; margin-right: 1; }
        & TextArea {
            width: 1fr; height: 100%; border: none; padding: 0 1; background: $panel;
            scrollbar-size-vertical: 1;
        }
        & TextArea:focus { border: none; }
        & TextArea .text-area--cursor-line { background: $panel; }
        & #hint { height: 1; color: $text-muted; }
        & #keys { margin-top: 0; }
        &.-narrow #both { layout: vertical; }
        &.-narrow #presets { width: 100%; height: auto; max-height: 6; margin: 0 0 1 0; }
        &.-narrow TextArea { height: 1fr; }
    }
    """

    def __init__(self, text: str, store: AsyncStore) -> None:
        super().__init__()
        self._text = text
        self._store = store
        self._presets: list[Preset] = []
        self._own: set[str] = set()  # names of the person's presets

    def content(self) -> Iterable[Widget]:
        """Presets and text, side by side where there is room."""
        with Vertical(id="both"):
            yield OptionList(id="presets", markup=False)
            yield TextArea(
                self._text,
                highlight_cursor_line=False,
                placeholder="What the model is told before everything else. Empty: nothing.",
            )
        yield Static("", id="hint", markup=False)

    @property
    def listing(self) -> OptionList:
        """The presets."""
        return self.query_one(OptionList)

    @property
    def area(self) -> TextArea:
        """The text."""
        return self.query_one(TextArea)

    async def on_mount(self) -> None:
        """The text has the keys, its cursor at the end."""
        self.area.focus()
        self.area.move_cursor(self.area.document.end)
        try:
            await self._fill(name_of(self._text, await self._store.presets()))
        except MacllmError as error:
            self.say(str(error))

    def on_resize(self) -> None:
        """Above each other where side by side would leave no room."""
        self.set_class(self.size.width < _NARROW, "-narrow")

    async def _fill(self, name: str = "") -> None:
        """Lists the presets, with the choice on ``name``."""
        saved = await self._store.presets()
        self._own = {preset.name for preset in saved}
        self._presets = merged(saved)
        self.listing.set_options(Option(preset.name) for preset in self._presets)
        names = [preset.name for preset in self._presets]
        self.listing.highlighted = names.index(name) if name in names else 0

    @property
    def _chosen(self) -> Preset | None:
        at = self.listing.highlighted
        return self._presets[at] if at is not None and at < len(self._presets) else None

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        """Puts the preset into the text, where it may be changed; undo brings back what was there."""
        event.stop()
        preset = self._presets[event.option_index]
        self.area.replace(preset.text, (0, 0), self.area.document.end, maintain_selection_offset=False)
        self.area.focus()

    def on_descendant_focus(self) -> None:
        """What the keys do here."""
        inside = self.listing.has_focus
        hint = "⏎ puts it into the text, d deletes one of your own" if inside else ""
        self.query_one("#hint", Static).update(hint)
        self.say("")

    def action_apply(self) -> None:
        """Gives the text."""
        self.dismiss(self.area.text.strip())

    def action_other(self) -> None:
        """From the text to the presets, and back."""
        (self.area if self.listing.has_focus else self.listing).focus()

    @work(exclusive=True)
    async def action_save(self) -> None:
        """Keeps the text as a preset."""
        text = self.area.text.strip()
        if not text:
            self.say("There is no text to keep yet; write the system prompt first.")
            return
        chosen = self._chosen
        suggested = chosen.name if chosen is not None and chosen.name in self._own else ""
        name = await self.app.push_screen_wait(TextInput("Name of the preset", suggested))
        if not name:
            return
        known = {preset.name for preset in self._presets}
        if name in known and not await self.app.push_screen_wait(
            Confirm(f"There is a preset “{name}”. Replace it with this text?", "replace")
        ):
            return
        try:
            await self._store.save_preset(name, text)
            await self._fill(name)
        except MacllmError as error:
            self.say(str(error))

    @work(exclusive=True)
    async def action_delete(self) -> None:
        """Deletes the chosen preset, after asking."""
        chosen = self._chosen
        if not self.listing.has_focus or chosen is None:
            return
        if chosen.name not in self._own:
            self.say(f"“{chosen.name}” comes with macllm and cannot be deleted.")
            return
        again = " The one of macllm comes back." if chosen.name in {one.name for one in BUILT_IN} else ""
        if not await self.app.push_screen_wait(
            Confirm(f"Delete the preset “{chosen.name}”?{again}", "delete")
        ):
            return
        try:
            await self._store.delete_preset(chosen.name)
            await self._fill()
        except MacllmError as error:
            self.say(str(error))
