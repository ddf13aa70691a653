"""The rows of a reply under way, kept at the end of a layout; what is settled is broken into lines once."""

from collections.abc import Sequence
from dataclasses import replace

from macllm_tui.widgets.blocks import Block, gap, rows_of
from macllm_tui.widgets.code import Code
from macllm_tui.widgets.live import LiveMarkdown
from macllm_tui.widgets.rows import Layout, Mark, Row

REMEMBERED = 600  # characters of a reply of which is known whether they were drafted
_STRAY = 60  # characters of markup between two that show: with more, the match is lost
_TINT = "on $primary-muted"


class LiveRows:
    """Keeps a layout, from where it ends now, equal to what a live text holds. ``broken`` counts rows broken."""

    def __init__(self, layout: Layout, live: LiveMarkdown) -> None:
        self.layout = layout
        self.live = live
        self.broken = 0
        self._settled = layout.mark()  # behind it only what may change
        self._blocks = 0  # of the settled ones, those that are laid out
        self._before: Block | None = None
        self._fence: Code | None = None  # the block of code whose first lines are laid out
        self._lines = 0

    def grow(self, drafted: "Drafted") -> Mark:
        """Takes over what came; gives the mark up to which nothing has changed."""
        unchanged = self._settled
        self.layout.cut(unchanged)
        for block in self.live.settled[self._blocks :]:
            if block is not self._fence:
                self._extend([*gap(self._before, block), *block.rows(self.layout.width)])
            else:
                self._grow_fence(self._fence)
                self._fence = None
            self._before = block
        self._blocks = len(self.live.settled)
        if self.live.fence is not None:
            if self._fence is None:
                self._fence, self._lines = self.live.fence, 0
                self._extend([*gap(self._before, self._fence), *self._fence.head()])
            self._grow_fence(self._fence)
        self._settled = self.layout.mark()
        self._extend(drafted.tint(self._unsettled()))
        return unchanged

    def _grow_fence(self, fence: Code) -> None:
        self._extend([fence.row(index) for index in range(self._lines, len(fence.lines))])
        self._lines = len(fence.lines)

    def _unsettled(self) -> list[Row]:
        if self.live.fence is not None:
            partial = self.live.partial
            return [Code("", [partial]).row(0)] if partial else []
        if not self.live.live:
            return []
        between = gap(self._before, self.live.live[0])
        return [*between, *rows_of(self.live.live, self.layout.width)]

    def _extend(self, rows: Sequence[Row]) -> None:
        self.broken += len(rows)
        self.layout.extend(rows)


class Drafted:
    """Which of the last characters of a reply a draft foresaw, to be tinted where they show."""

    def __init__(self) -> None:
        self._text = ""
        self._foreseen: list[bool] = []

    def add(self, text: str, drafted: Sequence[tuple[int, int]]) -> None:
        """Takes in what came, with the spans of it that were drafted."""
        foreseen = [False] * len(text)
        for start, end in drafted:
            foreseen[start:end] = [True] * (min(end, len(text)) - start)
        self._text = (self._text + text)[-REMEMBERED:]
        self._foreseen = (self._foreseen + foreseen)[-REMEMBERED:]

    def tint(self, rows: list[Row]) -> list[Row]:
        """The rows with that tint. Rows do not know their source: the two are compared from their ends on."""
        if not any(self._foreseen):
            return rows
        at = len(self._text)
        tinted = list(rows)
        for number in range(len(rows) - 1, -1, -1):
            plain, text = rows[number].text.plain, rows[number].text
            for place in range(len(plain) - 1, -1, -1):
                found = self._text.rfind(plain[place], max(at - _STRAY, 0), at)
                if found < 0:
                    return tinted
                at = found
                if self._foreseen[at]:
                    text = text.stylize(_TINT, place, place + 1)
            tinted[number] = replace(rows[number], text=text)
        return tinted
