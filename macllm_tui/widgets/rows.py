"""Lines of text with what stands before them, and how they break at a width."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rich.cells import cell_len, get_character_cell_size
from textual.content import Content

MEASURE = 100  # cells: longer lines of prose are hard to read, however wide the terminal is

_WIDE = (
    "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6"
    "\U00020000-\U0003fffd"
)
_CLOSING = "、。，．！？：；」』）】》〉"
# What must not be broken: a word; or one character of a script without spaces with the marks that close it.
_PIECE = re.compile(f" *(?:[{_WIDE}][{_CLOSING}]*|[^ {_WIDE}]+)| +$")

EMPTY = Content("")
MUTED = "$foreground-muted"  # $text-muted is found against a background, which a span does not know


class Styled(Protocol):
    """Where a row's text gets its colours when it is first seen, because they are dear (code)."""

    def line(self, index: int) -> Content:
        """The line with its colours, or without while they are not there yet."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a message before it is broken at the width."""

    text: Content = EMPTY
    first: Content = EMPTY  # before its first piece: a bullet, a bar
    rest: Content = EMPTY  # before the others, as wide
    fill: str = ""  # style behind all of the width
    right: str = ""  # at the right end of the first piece
    fold: bool = False  # breaks inside words, and the whole width is used: code, tables
    source: Styled | None = None  # of the colours
    index: int = 0  # of the line in the source
    action: str = ""  # what a click on it does
    copied: bool = True  # a selection takes it along

    def behind(self, first: Content, rest: Content) -> "Row":
        """The same row inside a quote or a list."""
        if not (first or rest):
            return self
        return Row(
            self.text,
            first + self.first,
            rest + self.rest,
            self.fill,
            self.right,
            self.fold,
            self.source,
            self.index,
            self.action,
            self.copied,
        )


class Piece(NamedTuple):
    """What of a row stands on one line of the screen: ``row`` is its number, the others are offsets."""

    row: int
    start: int
    end: int


class Mark(NamedTuple):
    """A place in a layout to go back to."""

    rows: int
    pieces: int


def breaks(text: str, width: int, fold: bool = False) -> Iterator[tuple[int, int]]:
    """Where a line of text breaks: start and end of each piece, at most ``width`` cells each."""
    width = max(width, 2)
    if len(text) * 2 <= width or cell_len(text) <= width:
        yield 0, len(text)
        return
    if fold:
        yield from _folded(text, 0, len(text), width)
        return
    start = end = cells = 0
    for match in _PIECE.finditer(text):
        piece = match[0]
        size = cell_len(piece)
        if cells + size <= width:
            cells, end = cells + size, match.end()
            continue
        word = match.end() - len(piece.lstrip(" "))
        if word == match.end():  # spaces that end the line
            continue
        if end > start:
            yield start, end
        size -= word - match.start()
        if size > width:
            *full, (word, _) = _folded(text, word, match.end(), width)
            yield from full
            size = cell_len(text[word : match.end()])
        start, end, cells = word, match.end(), size
    yield start, end


def _folded(text: str, start: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    if text.isascii():
        for at in range(start, end, width):
            yield at, min(at + width, end)
        return
    cells = 0
    for at in range(start, end):
        size = get_character_cell_size(text[at])
        if cells + size > width:
            yield start, at
            start, cells = at, 0
        cells += size
    yield start, end


@dataclass
class Layout:
    """Rows broken at a width. Grows and is cut at its end only, so that a stream costs what it adds."""

    width: int
    rows: list[Row] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def mark(self) -> Mark:
        """The end as it is now."""
        return Mark(len(self.rows), len(self.pieces))

    def cut(self, mark: Mark) -> None:
        """Forgets what came after the mark."""
        del self.rows[mark.rows :]
        del self.pieces[mark.pieces :]

    def extend(self, rows: Iterable[Row]) -> None:
        """Adds rows at the end."""
        for row in rows:
            number = len(self.rows)
            self.rows.append(row)
            room = self.width if row.fold else min(self.width, MEASURE)
            room -= max(row.first.cell_length, row.rest.cell_length) + cell_len(row.right)
            self.pieces += [Piece(number, *at) for at in breaks(row.text.plain, room, row.fold)]

    def text(self) -> list[str]:
        """What a selection is taken from: one line a row."""
        return [row.text.plain if row.copied else "" for row in self.rows]

    def first_piece(self, row: int) -> int:
        """The line of the screen on which a row begins."""
        low, high = 0, len(self.pieces)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.pieces[middle].row < row else (low, middle)
        return low


def behind(rows: Sequence[Row], first: Content, rest: Content) -> list[Row]:
    """Rows inside a quote or a list item: ``first`` before the first of them, ``rest`` before the others."""
    return [row.behind(first if number == 0 else rest, rest) for number, row in enumerate(rows)]
