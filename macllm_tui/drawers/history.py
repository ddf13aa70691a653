"""Earlier prompts, found as one types and put back into the prompt."""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.binding import Binding
from textual.widgets.option_list import Option

from macllm.chats.async_store import AsyncStore
from macllm_tui.drawers.filtered import FilteredDrawer
from macllm_tui.widgets.visible import visible, with_newlines

_MOST = 200
_LINE = 400  # characters of a prompt that a line may need


class PromptHistory(FilteredDrawer[str]):
    """Gives the prompt chosen, whole; None when left."""

    heading = "Earlier prompts"
    placeholder = "words of the prompt"
    BINDINGS: ClassVar[list[Any]] = [Binding("enter", "open", "put into the prompt")]

    def __init__(self, store: AsyncStore, words: str = "") -> None:
        super().__init__(words)
        self._store = store
        self._prompts: list[str] = []

    async def find(self, words: str, offset: int) -> Sequence[Option]:
        """The newest first, each once."""
        if offset:
            return ()
        self._prompts = await self._store.prompts(words, _MOST)
        return [Option(one_line(text), id=str(index)) for index, text in enumerate(self._prompts)]

    def take(self, option: str) -> None:
        """Gives the prompt."""
        self.dismiss(self._prompts[int(option)])

    def nothing(self, words: str) -> str:
        """Why the list is empty."""
        if words:
            return "No earlier prompt has these words; try fewer, or the beginnings of words."
        return "Nothing was asked yet. What you send can be found here."


def one_line(text: str) -> str:
    """A text in one line, with a mark where lines end."""
    lines = [line.strip() for line in visible(with_newlines(text[:_LINE])).strip().split("\n")]
    return " ⏎ ".join(line for line in lines if line)
