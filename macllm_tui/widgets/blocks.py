"""What Markdown says, as blocks that know their rows at a width. No parser here, no widget.

``seam`` of a block: no empty row before it, since it continues one that was too long to wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from textual.content import Content, Span

from macllm_tui.widgets.code import Code
from macllm_tui.widgets.rows import EMPTY, MUTED, Row, behind, breaks

BULLETS = ("•", "◦", "▪")
_QUOTE = Content("│ ", [Span(0, 2, MUTED)])
_BETWEEN = Content(" │ ", [Span(0, 3, MUTED)])
_LEAST = 8  # cells of a table's column: where there is less room, each row becomes a list of its cells


@dataclass(frozen=True)
class Paragraph:
    """Lines of text. A line end that was typed is kept: models mean it."""

    text: Content
    seam: bool = False

    def rows(self, width: int) -> list[Row]:
        """One a line."""
        return [Row(line) for line in _lines(self.text)]


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 6."""

    level: int
    text: Content
    seam: bool = False

    def rows(self, width: int) -> list[Row]:
        """The heading, and a line under the two greatest."""
        style = "bold $text-primary" if self.level < 4 else "bold"
        rows = [Row(line.stylize_before(style)) for line in _lines(self.text)]
        if self.level == 1:
            line = "━" * min(max((row.text.cell_length for row in rows), default=0), width)
            rows.append(Row(Content(line, [Span(0, len(line), MUTED)]), copied=False))
        return rows


@dataclass(frozen=True)
class Rule:
    """A line across."""

    seam: bool = False

    def rows(self, width: int) -> list[Row]:
        """The line."""
        line = "─" * min(width, 40)
        return [Row(Content(line, [Span(0, len(line), MUTED)]))]


@dataclass(frozen=True)
class Item:
    """One item of a list, whole lists are never waited for. ``marker`` is as the model wrote it, or a bullet."""

    marker: str
    blocks: "tuple[Block, ...]"
    seam: bool = False

    @property
    def tall(self) -> bool:
        """Whether it is several paragraphs, so that the next item stands apart."""
        return sum(not isinstance(block, Item) for block in self.blocks) > 1

    def rows(self, width: int) -> list[Row]:
        """Its blocks, behind the marker."""
        size = len(self.marker) + 1
        first = Content(self.marker + " ", [Span(0, size, "$text-secondary bold")])
        rows = rows_of(self.blocks, width - size, nested=True) or [Row()]
        return behind(rows, first, Content(" " * size))


@dataclass(frozen=True)
class Quote:
    """What is quoted."""

    blocks: "tuple[Block, ...]"
    seam: bool = False

    def rows(self, width: int) -> list[Row]:
        """Its blocks, behind a bar."""
        return behind(rows_of(self.blocks, width - 2, nested=True), _QUOTE, _QUOTE)


@dataclass(frozen=True)
class Table:
    """A table: the cells of the header, then those of each row; ``aligned`` a column: left, right or center."""

    header: tuple[Content, ...]
    body: tuple[tuple[Content, ...], ...]
    aligned: tuple[str, ...]
    seam: bool = False

    def rows(self, width: int) -> list[Row]:
        """The table, its cells broken to fit; where there is no room for columns, a list a row."""
        widths = self._widths(width)
        if not widths:
            return self._listed()
        rule = Content("─┼─".join("─" * size for size in widths))
        rule = rule.stylize(MUTED)
        header = self._line(tuple(cell.stylize_before("bold") for cell in self.header), widths)
        broken = [self._line(cells, widths) for cells in self.body]
        ruled = any(len(lines) > 1 for lines in broken)  # else one sees not where a row of several lines ends
        rows = [*header, Row(rule, fold=True, copied=False)]
        for number, lines in enumerate(broken):
            if ruled and number:
                rows.append(Row(rule, fold=True, copied=False))
            rows += lines
        return rows

    def _widths(self, width: int) -> list[int]:
        natural = [
            max(1, *(line.cell_length for row in (self.header, *self.body) for line in _lines(row[column])))
            for column in range(len(self.header))
        ]
        room = width - 3 * (len(natural) - 1)
        if sum(natural) <= room:
            return natural
        if room < _LEAST * len(natural):
            return []
        widths, left = list(natural), sorted(range(len(natural)), key=lambda column: natural[column])
        while left:  # narrow columns keep their width, the wide ones share the rest
            column = left.pop(0)
            widths[column] = min(natural[column], room // (len(left) + 1))
            room -= widths[column]
        return widths

    def _line(self, cells: tuple[Content, ...], widths: Sequence[int]) -> list[Row]:
        pieces = [
            [line[start:end] for line in _lines(cell) for start, end in breaks(line.plain, size)]
            for cell, size in zip(cells, widths, strict=True)
        ]
        rows = []
        for number in range(max(map(len, pieces))):
            padded = [
                _padded(column[number] if number < len(column) else EMPTY, size, aligned)
                for column, size, aligned in zip(pieces, widths, self.aligned, strict=True)
            ]
            rows.append(Row(_BETWEEN.join(padded), fold=True))
        return rows

    def _listed(self) -> list[Row]:
        rows: list[Row] = []
        for number, cells in enumerate(self.body):
            rows += [Row()] if number else []
            for name, cell in zip(self.header, cells, strict=True):
                first, *more = _lines(cell)
                rows += [Row(name.stylize_before("bold") + ": " + first), *(Row(line) for line in more)]
        return rows or [Row(_BETWEEN.join(self.header))]


@dataclass(frozen=True)
class Raw:
    """Text as it is, line by line: what a person wrote, or what is not parsed yet."""

    text: str
    style: str = ""
    seam: bool = False

    def rows(self, width: int) -> list[Row]:
        """One a line."""
        return [Row(line.stylize(self.style) if self.style else line) for line in _plain_lines(self.text)]


Block: TypeAlias = Paragraph | Heading | Rule | Item | Quote | Table | Raw | Code


def rows_of(blocks: Sequence[Block], width: int, *, nested: bool = False) -> list[Row]:
    """The rows of blocks that follow each other, with empty rows between them where they stand apart."""
    rows: list[Row] = []
    before: Block | None = None
    for block in blocks:
        rows += gap(before, block, nested=nested)
        rows += block.rows(max(width, 4))
        before = block
    return rows


def gap(before: Block | None, block: Block, *, nested: bool = False) -> list[Row]:
    """The empty row between two blocks, or none. It depends on these two alone, so that it is known early.

    ``nested`` blocks are those of a list item or a quote: what follows its first paragraph as a list follows at once.
    """
    if before is None or block.seam:
        return []
    if isinstance(before, Heading):
        return []
    if isinstance(block, Item) and isinstance(before, Item):
        return [Row()] if before.tall or _starts_list(before, block) else []
    return [] if nested and isinstance(block, Item) and isinstance(before, Paragraph) else [Row()]


def _starts_list(before: Item, block: Item) -> bool:
    """Whether two items that follow each other belong to lists of different kinds."""
    return before.marker[:-1].isdigit() != block.marker[:-1].isdigit()


def _lines(text: Content) -> list[Content]:
    return text.split("\n", allow_blank=True) if "\n" in text.plain else [text]


def _plain_lines(text: str) -> list[Content]:
    return [Content(line, strip_control_codes=False) for line in text.expandtabs(4).split("\n")]


def _padded(cell: Content, size: int, aligned: str) -> Content:
    space = max(size - cell.cell_length, 0)
    before = {"right": space, "center": space // 2}.get(aligned, 0)
    return cell.pad(before, space - before)
