"""Finding words in a chat: which messages hold them, and which match comes next."""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Match(NamedTuple):
    """The ``number``-th match in the ``entry``-th message."""

    entry: int
    number: int


class Finder:
    """Looks for words, whatever their case, and remembers at which match it stands."""

    def __init__(self) -> None:
        self.words = ""
        self.pattern: re.Pattern[str] | None = None
        self.at: Match | None = None

    def look_for(self, words: str) -> bool:
        """Sets the words; whether they are others than before."""
        if words == self.words:
            return False
        self.words, self.at = words, None
        self.pattern = re.compile(re.escape(words), re.IGNORECASE) if words else None
        return True

    def step(self, counts: Sequence[int], step: int, first: int) -> tuple[int, int]:
        """Goes to the next match (``step`` 1), the one before (-1), or the first in or after the ``first`` message.

        ``counts`` are the matches in each message. Gives which match that is, from 1, and of how many.
        """
        matches = [Match(entry, number) for entry, count in enumerate(counts) for number in range(count)]
        if not matches:
            self.at = None
            return 0, 0
        if self.at is None:
            which = next((n for n, match in enumerate(matches) if match.entry >= first), 0)
        else:
            here = next((n for n, match in enumerate(matches) if match >= self.at), 0)
            which = (here + step) % len(matches)
        self.at = matches[which]
        return which + 1, len(matches)
