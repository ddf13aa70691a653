"""From token ids to the text a caller sees: whole characters, nothing of a stop string, thoughts apart."""

from collections.abc import Mapping, Sequence

from macllm.engine.stop import StopStrings
from macllm.tokenizer.base import Tokenizer
from macllm.tokenizer.reasoning import Reasoning


class TextOut:
    """The text of one generation as it becomes final. Without a tokenizer there is none.

    Stop strings are looked for in all that the model writes, thoughts and their marks included.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, stops: Sequence[str], reasoning: Reasoning | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream() if tokenizer is not None else None
        self._stops = StopStrings(stops)
        self._splitter = reasoning.splitter() if reasoning is not None else None
        self._marks: Mapping[int, str] = reasoning.markers.tokens if reasoning is not None else {}

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._stops.found is not None

    @property
    def thinking(self) -> bool:
        """Whether the next token belongs to a thought."""
        return self._splitter is not None and self._splitter.thinking

    def add(self, token: int) -> tuple[str, str]:
        """The text and the thought that became final with ``token``."""
        if self._stream is None:
            return "", ""
        mark = self._marks.get(token)
        piece = self._stops.feed(self._stream.add(token) if mark is None else mark)
        return self._splitter.feed(piece) if self._splitter is not None else (piece, "")

    def finish(self) -> tuple[str, str]:
        """The text and the thought still held back."""
        if self._stream is None:
            return "", ""
        rest = "" if self.stopped else self._stops.feed(self._stream.finish()) + self._stops.flush()
        if self._splitter is None:
            return rest, ""
        text, thought = self._splitter.feed(rest)
        last_text, last_thought = self._splitter.finish()
        return text + last_text, thought + last_thought

    def name(self, token: int) -> str:
        """A token's own text, for tables."""
        return self._tokenizer.token_text(token) if self._tokenizer is not None else ""
