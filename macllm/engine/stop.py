"""Ends a text at a stop string, wherever pieces of the text are cut, and holds back what may become one."""

from collections.abc import Sequence


class StopStrings:
    """Text pieces in, text that is safe to show out. The text ends before the first stop string completed.

    Where several complete with the same character the longest counts, so the result does not depend on how
    the text was cut. One automaton a stop string (Knuth, Morris, Pratt) reads each character once: the cost is
    linear in the text, however long the stop strings are.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """``stops`` must not hold an empty string (``Limits`` refuses it)."""
        self.found: str | None = None  # the stop string that ended the text
        self._stops = tuple(dict.fromkeys(stops))
        self._borders = tuple(_borders(stop) for stop in self._stops)
        self._matched = [0] * len(self._stops)  # characters of each that the text ends with
        self._held = ""

    def feed(self, piece: str) -> str:
        """Takes the next piece; returns what can no longer be part of a stop string. "" once one is found."""
        if self.found is not None:
            return ""
        text = self._held + piece
        for position, character in enumerate(piece, start=len(self._held) + 1):
            complete = self._advance(character)
            if complete:
                self.found, self._held = complete, ""
                return text[: position - len(complete)]
        safe = len(text) - max(self._matched, default=0)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The text ended without a stop string: returns what was held back."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return held

    def _advance(self, character: str) -> str:
        """Reads one character; the longest stop string that it completes, or ""."""
        complete = ""
        for which, stop in enumerate(self._stops):
            matched, borders = self._matched[which], self._borders[which]
            while matched and stop[matched] != character:
                matched = borders[matched - 1]
            if stop[matched] == character:
                matched += 1
            self._matched[which] = matched
            if matched == len(stop) and matched > len(complete):
                complete = stop
        return complete


def _borders(stop: str) -> list[int]:
    """For each prefix, the length of the longest shorter prefix that it also ends with."""
    borders = [0] * len(stop)
    matched = 0
    for position in range(1, len(stop)):
        while matched and stop[matched] != stop[position]:
            matched = borders[matched - 1]
        if stop[matched] == stop[position]:
            matched += 1
        borders[position] = matched
    return borders
