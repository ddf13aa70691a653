"""Ids to text one token at a time, in constant time a token, never splitting a character."""

import codecs
from collections.abc import Set
from typing import Protocol


class TokenTable(Protocol):
    """What a detokenizer needs of a tokenizer."""

    @property
    def special_ids(self) -> Set[int]: ...

    def token_bytes(self, token: int) -> bytes: ...

    def opening_bytes(self, token: int) -> tuple[bytes, bool]: ...


class Detokenizer:
    """Turns ids into text as they come; all it returned, joined, is what ``decode`` gives for the ids.

    Special tokens give no text (they neither end nor break a character in progress) unless
    ``show_special``. Bytes of an unfinished character wait; ``finish`` returns what is left of them.
    """

    def __init__(self, table: TokenTable, *, show_special: bool = False) -> None:
        self._token_bytes = table.token_bytes
        self._opening_bytes = table.opening_bytes
        self._hidden: Set[int] = frozenset() if show_special else table.special_ids
        self._at_start = True
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """The text that became final with this token; often empty within a character."""
        if token in self._hidden:
            return ""
        if self._at_start:
            data, self._at_start = self._opening_bytes(token)
        else:
            data = self._token_bytes(token)
        return self._utf8.decode(data)

    def finish(self) -> str:
        """The rest: U+FFFD for a character that was never completed. The next id starts a new text."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        self._at_start = True
        return rest
