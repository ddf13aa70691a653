"""From token ids to the text a caller sees: whole characters, nothing of a stop string."""

from collections.abc import Sequence

from macllm.engine.stop import StopStrings
from macllm.tokenizer.base import Tokenizer


class TextOut:
    """The text of one generation as it becomes final. Without a tokenizer there is none."""

    def __init__(self, tokenizer: Tokenizer | None, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream() if tokenizer is not None else None
        self._stops = StopStrings(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._stops.found is not None

    def add(self, token: int) -> str:
        """The text that became final with ``token``."""
        return self._stops.feed(self._stream.add(token)) if self._stream is not None else ""

    def finish(self) -> str:
        """The text still held back."""
        if self._stream is None or self.stopped:
            return ""
        return self._stops.feed(self._stream.finish()) + self._stops.flush()

    def name(self, token: int) -> str:
        """A token's own text, for tables."""
        return self._tokenizer.token_text(token) if self._tokenizer is not None else ""
