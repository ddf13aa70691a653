"""The rows of a reply under way, kept at the end of a layout; what is settled is broken into lines once."""

from collections.abc import Sequence
from dataclasses import replace

from macllm_tui.widgets.blocks import Block, gap
from macllm_tui.widgets.code import Code
from macllm_tui.widgets.live import LiveMarkdown
from macllm_tui.widgets.rows import Layout, Mark, Row

REMEMBERED = 600  # characters of a reply of which is known whether they were drafted
_STRAY = 60  # characters of markup between two that show: with more, the match is lost
_TINT = "on $primary 15%"


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
        self._unsettled: list[tuple[Block, Mark]] = []  # and where each of them ends

    def grow(self, drafted: "Drafted") -> Mark:
        """Takes over what came; gives the mark up to which nothing has changed."""
        settled, fence = self.live.settled[self._blocks :], self.live.fence
        kept = 0
        if not settled and fence is None:  # what was too long to be parsed again is not laid out again either
            pairs = zip(self._unsettled, self.live.live, strict=False)
            kept = next((n for n, (old, new) in enumerate(pairs) if old[0] is not new), len(self._unsettled))
            kept = min(kept, len(self.live.live))
        unchanged = self._unsettled[kept - 1][1] if kept else self._settled
        del self._unsettled[kept:]
        self.layout.cut(unchanged)
        for block in settled:
            self._settle(block)
        if fence is not None:
            if self._fence is None:
                self._fence, self._lines = fence, 0
                self._extend([*gap(self._before, fence), *fence.head()])
            self._grow_fence(fence)
        if not kept:
            self._settled = self.layout.mark()
        if fence is None:
            self._show_unsettled(kept, drafted)
        elif partial := self.live.partial:
            self._extend(drafted.tint([Code("", [partial]).row(0)]))
        return unchanged

    def _settle(self, block: Block) -> None:
        if block is self._fence:
            self._grow_fence(self._fence)
            self._fence = None
        else:
            self._extend([*gap(self._before, block), *block.rows(self.layout.width)])
        self._before = block
        self._blocks += 1

    def _grow_fence(self, fence: Code) -> None:
        self._extend([fence.row(index) for index in range(self._lines, len(fence.lines))])
        self._lines = len(fence.lines)

    def _show_unsettled(self, kept: int, drafted: "Drafted") -> None:
        blocks = self.live.live
        for number in range(kept, len(blocks)):
            block = blocks[number]
            before = blocks[number - 1] if number else self._before
            rows = block.rows(self.layout.width)
            self._extend([*gap(before, block), *(drafted.tint(rows) if block is blocks[-1] else rows)])
            self._unsettled.append((block, self.layout.mark()))

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
