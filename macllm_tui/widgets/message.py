"""One message as one widget: its rows are broken at the width, and a line is drawn when it is seen.

Not Textual's Markdown, which is a widget a block: 200 messages were 2,601 widgets and took 9.8 s. Here 500
messages are as many widgets as are near the screen, and a reply that grows costs what it grows by.
"""

import asyncio
import re
from collections.abc import Sequence

from rich.segment import Segment
from textual import events
from textual.content import Content
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from macllm_tui.widgets.blocks import Block
from macllm_tui.widgets.code import Code
from macllm_tui.widgets.live import LiveMarkdown
from macllm_tui.widgets.live_rows import Drafted, LiveRows
from macllm_tui.widgets.message_rows import (
    Entry,
    body_rows,
    foot_rows,
    head_rows,
    thinking_rows,
    thought_rows,
    typed_rows,
)
from macllm_tui.widgets.rows import MUTED, Layout, Piece, Row
from macllm_tui.widgets.visible import visible, with_newlines

GUTTER = 2  # cells at the left, where the bar of the chosen message stands
_BAR = "▌ "


class MessageView(Widget):
    """A message, whole or under way."""

    DEFAULT_CSS = """
    MessageView {
        width: 1fr;
        height: auto;
        margin-bottom: 1;
    }
    """
    ALLOW_MAXIMIZE = False

    def __init__(self, entry: Entry, *, folded: bool = True, live: bool = False) -> None:
        super().__init__()
        self.entry = entry
        self.folded = folded
        self.chosen = False
        self._live: LiveMarkdown | None = None
        self._live_rows: LiveRows | None = None
        self._pending: list[str] = []
        self._drafted = Drafted()
        self._thought = visible(with_newlines(entry.message.thought))
        self._answering = False
        self._blocks: list[Block] | None = None
        self._turned: set[int] = set()  # attached files that a click folded or unfolded
        self._layout: Layout | None = None
        self._strips: dict[int, Strip] = {}
        self._words: re.Pattern[str] | None = None
        self._current: tuple[int, int] | None = None  # row and offset of the match that is shown
        if live:
            self._live = LiveMarkdown()
            self._pending.append(entry.message.text)

    # what it shows

    def prepare(self, width: int = 0) -> None:
        """Parses the text and breaks it at a width, if that is known; in a thread, before it is mounted."""
        if self._blocks is None and self._live is None and self.entry.message.role != "user":
            from macllm_tui.widgets.markdown import blocks_of

            self._blocks = blocks_of(visible(with_newlines(self.entry.message.text)))
        if width:
            self._layout = self._lay_out(_inner(width))

    def settle(self, whole: "MessageView") -> None:
        """Shows a whole message from now on: that of another, prepared widget."""
        self.entry = whole.entry
        self._live = self._live_rows = None
        self._pending.clear()
        self._blocks, self._thought = whole._blocks, whole._thought
        self._changed()
        if self.folded == whole.folded and not self._turned:
            self._layout = whole._layout

    def relabel(self, entry: Entry) -> None:
        """Other siblings, another state; its text goes on growing."""
        self.entry = entry
        self._changed()

    def feed(self, text: str, thought: str = "", drafted: Sequence[tuple[int, int]] = ()) -> None:
        """Collects what came; :meth:`grow` shows it."""
        if text:
            self._pending.append(text)
            self._drafted.add(text, drafted)
        if thought:
            self._thought += visible(with_newlines(thought))
            self._pending.append("")

    @property
    def pending(self) -> bool:
        """Whether something came that is not shown yet."""
        return bool(self._pending)

    def grow(self) -> None:
        """Shows what came since the last time."""
        if self._live is None or not self._pending:
            return
        text = "".join(self._pending)
        self._pending.clear()
        self._live.update(text)
        began = bool(text.strip()) and not self._answering
        self._answering = self._answering or began
        if self._layout is None:
            return
        height = len(self._layout.pieces)
        changed = 0
        if began or self._live_rows is None or not self._answering:
            self._layout = self._lay_out(self._layout.width)
            self._strips.clear()
        else:
            changed = self._redraw(self._live_rows.grow(self._drafted).pieces, height)
        if len(self._layout.pieces) != height:
            self.refresh(layout=True)
        else:  # most often a word more in the last line: the rest of the screen is left alone
            self.refresh(Region(0, changed, self.size.width, height - changed))

    def _redraw(self, first: int, height: int) -> int:
        """Draws the lines from ``first`` on again where they were drawn; gives the first that looks different."""
        layout = self._laid_out()
        changed = height
        for line in range(first, height):
            old = self._strips.pop(line, None)
            if line < len(layout.pieces) and old is not None:
                piece = layout.pieces[line]
                self._strips[line] = self._draw(piece, layout.rows[piece.row])
            if changed == height and (old is None or self._strips.get(line) != old):
                changed = line
        return changed

    def fold(self, folded: bool) -> None:
        """Folds or unfolds what was thought and what was attached."""
        if folded != self.folded:
            self.folded = folded
            self._turned.clear()
            self._changed()

    def choose(self, chosen: bool) -> None:
        """Shows the bar at its left."""
        if chosen != self.chosen:
            self.chosen = chosen
            self._strips.clear()
            self.refresh()

    # finding

    def mark(self, words: re.Pattern[str] | None, current: int | None = None) -> int:
        """Marks all matches, the ``current``-th of them more; gives the line of that one, else 0."""
        self._words, self._current = words, None
        self._strips.clear()
        self.refresh()
        if words is None or current is None:
            return 0
        found = self.matches(words)
        if not found:
            return 0
        row, start = self._current = found[min(current, len(found) - 1)]
        layout = self._laid_out()
        for line in range(layout.first_piece(row), len(layout.pieces)):
            if layout.pieces[line].row != row or layout.pieces[line].end > start:
                return line
        return 0

    def matches(self, words: re.Pattern[str]) -> list[tuple[int, int]]:
        """Row and offset of each match, from top to bottom."""
        rows = self._laid_out().rows
        said = [(number, row) for number, row in enumerate(rows) if number and row.copied]
        return [(number, at.start()) for number, row in said for at in words.finditer(row.text.plain)]

    # layout

    def _laid_out(self) -> Layout:
        if self._layout is None:
            self._layout = self._lay_out(_inner(self.size.width))
        return self._layout

    def _lay_out(self, width: int) -> Layout:
        layout = Layout(width)
        message = self.entry.message
        streaming = self._live is not None
        layout.extend(head_rows(self.entry, streaming))
        if streaming and not self._answering:
            layout.extend(thinking_rows(self._thought, width) if self._thought.strip() else [])
        else:
            layout.extend(thought_rows(message, self._thought, folded=self.folded))
        if self._live is not None:
            self._live_rows = LiveRows(layout, self._live)
            self._live_rows.grow(self._drafted)
        elif message.role == "user":
            text = visible(with_newlines(message.text))
            layout.extend(typed_rows(text, width, folded=self.folded, turned=self._turned))
        else:
            self.prepare()
            assert self._blocks is not None
            layout.extend(body_rows(self._blocks, width))
            layout.extend(foot_rows(message))
        return layout

    def _changed(self) -> None:
        self._layout = None
        self._strips.clear()
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Lines at a width."""
        inner = _inner(width)
        if self._layout is None or self._layout.width != inner:
            self._layout = self._lay_out(inner)
            self._strips.clear()
        return len(self._layout.pieces)

    def notify_style_update(self) -> None:
        """Another theme: all colours are looked up again."""
        super().notify_style_update()
        self._strips.clear()

    # drawing

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        layout = self._laid_out()
        if y >= len(layout.pieces):
            return Strip.blank(self.size.width, self.visual_style.rich_style)
        if y not in self._strips:
            self._strips[y] = self._draw(layout.pieces[y], layout.rows[layout.pieces[y].row])
        return self._strips[y]

    def _draw(self, piece: Piece, row: Row) -> Strip:
        base = self.visual_style
        fill = base + self._get_style(row.fill) if row.fill else base
        width = max(self.size.width, GUTTER)
        bar = base + self._get_style("bold $primary") if self.chosen else base
        segments = _cells(_BAR if self.chosen else " " * GUTTER, bar, piece)
        for text, style in (row.first if piece.start == 0 else row.rest).render(
            fill, end="", parse_style=self._get_style
        ):
            segments += _cells(text, fill + style, piece)
        x = piece.start
        text_shown = self._coloured(piece.row, row)[piece.start : piece.end]
        for text, style in text_shown.render(fill, end="", parse_style=self._get_style):
            segments.append(Segment(text, (fill + style).rich_style_with_offset(x, piece.row)))
            x += len(text)
        strip = Strip(segments)
        right = row.right if piece.start == 0 else ""
        room = width - 1 - strip.cell_length - len(right)
        segments.append(Segment(" " * max(room, 0), fill.rich_style))
        if right:
            segments.append(Segment(right, (base + self._get_style(MUTED)).rich_style))
        segments.append(Segment(" ", base.rich_style))
        return Strip(segments).adjust_cell_length(width, base.rich_style)

    def _coloured(self, number: int, row: Row) -> Content:
        text = row.text
        if row.source is not None:
            if isinstance(row.source, Code) and row.source.dear and not row.source.asked:
                self._colour(row.source)
            text = row.source.line(row.index)
        if self._words is not None and number and row.copied:
            for at in self._words.finditer(text.plain):
                shown = (number, at.start()) == self._current
                text = text.stylize("bold reverse" if shown else "underline $text-warning", *at.span())
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(number)) is not None:
            style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            start, end = span
            text = text.stylize(style, start, len(text) if end == -1 else end)
        return text

    def _colour(self, code: Code) -> None:
        code.asked = True

        async def colour() -> None:
            await asyncio.to_thread(code.colour)
            self._strips.clear()
            self.refresh()

        self.run_worker(colour(), group="colour")

    # the mouse

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text as it was said: lines that were broken at the width are whole."""
        return selection.extract("\n".join(self._laid_out().text())), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Draws the selection."""
        self._strips.clear()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Unfolds what is folded; the click goes on to the transcript, which chooses the message."""
        pieces = self._laid_out().pieces
        if not 0 <= event.y < len(pieces):
            return
        kind, _, number = self._laid_out().rows[pieces[event.y].row].action.partition(" ")
        if kind == "thought":
            self.fold(not self.folded)
        elif kind == "file":
            self._turned ^= {int(number)}
            self._changed()


def _inner(width: int) -> int:
    """Cells for the rows: a bar stands at the left, and one cell is free at the right."""
    return max(width - GUTTER - 1, 4)


def _cells(text: str, style: Style, piece: Piece) -> list[Segment]:
    """Cells before the text, each of which a selection takes for the place where the text starts."""
    shown = style.rich_style_with_offset(piece.start, piece.row)
    return [Segment(character, shown) for character in text]
