"""Long pieces of a prompt stand in it as one short marker: the prompt stays readable, and quick to type in.

Wrapping a megabyte takes a second, and again with each key in it.
"""

import re
from collections.abc import Iterator

from macllm.units import size
from macllm_tui.widgets.visible import with_newlines

LONG = 8_000  # characters
LINES = 200
KEPT = 32  # texts whose markers may come back, by undo or with the draft of another chat

_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a terminal would obey them
_FILE = re.compile(r"^(`{3,})file:([^\n`]*)\n.*?^\1$", re.DOTALL | re.MULTILINE)


def clean(text: str) -> str:
    """Text that may be typed: line ends as here, without control characters."""
    return _UNWANTED.sub("", with_newlines(text))


class Folds:
    """Markers and what they stand for."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def fold(self, text: str, name: str = "pasted") -> str:
        """The marker that stands for ``text`` from now on."""
        text = self.expand(text)  # what a marker stands for has none inside
        for marker, known in self._texts.items():
            if known == text:
                return marker
        lines = text.count("\n") + 1
        name = re.sub(r"[\[\]\s]+", " ", name).strip()
        said = f"{lines:,} lines, {size(len(text.encode()))}" if lines > 1 else size(len(text.encode()))
        marker, number = f"[{name}: {said}]", 1
        while marker in self._texts:
            number += 1
            marker = f"[{name} {number}: {said}]"
        self._texts[marker] = text
        self._pattern = re.compile("|".join(re.escape(each) for each in self._texts))
        return marker

    def fold_long(self, text: str) -> str:
        """``text``, or its marker where it is too long to stand in a prompt."""
        return self.fold(text) if is_long(text) else text

    def refold(self, text: str) -> str:
        """A whole text with the markers it had, and new ones for long files; what is then still long is folded."""
        kept = dict(list(self._texts.items())[-KEPT:])
        self._texts = kept
        self._pattern = re.compile("|".join(re.escape(each) for each in kept)) if kept else None
        for marker, known in kept.items():
            text = text.replace(known, marker)
        if is_long(text):
            text = _FILE.sub(
                lambda found: self.fold(found[0], found[2]) if is_long(found[0]) else found[0], text
            )
        return self.fold_long(text)

    def expand(self, text: str) -> str:
        """``text`` with what its markers stand for."""
        if self._pattern is None or "[" not in text:
            return text
        return self._pattern.sub(lambda found: self._texts[found[0]], text)

    def spans(self, line: str) -> Iterator[tuple[int, int]]:
        """Where markers are in a line."""
        if self._pattern is not None:
            yield from (found.span() for found in self._pattern.finditer(line))


def is_long(text: str) -> bool:
    """Whether a text is better folded."""
    return len(text) > LONG or text.count("\n") > LINES
