"""A reply under way: what of it is settled for good, and the end that may still change its meaning.

Each update parses only the unsettled end. It is short, because blocks settle one by one, and so do the items of
a list; an open fence is not parsed at all; a paragraph without end is cut where no mark is open; and what
cannot be cut (a long quote, a long table) is parsed again only when it has grown by a quarter.
"""

import re
from typing import Any

from macllm_tui.widgets.blocks import Block, Paragraph, Raw
from macllm_tui.widgets.code import Code
from macllm_tui.widgets.markdown import Placed, closes, language_of, parse
from macllm_tui.widgets.visible import visible

LIMIT = 2_000  # characters of the end that are parsed 30 times a second: 3 to 6 ms on a slow machine
_KEPT = 400  # characters that stay after a cut
_PLACES = re.compile(r"[\n ](?=[^\W\d])|(?<=[。！？])")
_MAYBE_CLOSING = re.compile(r" {0,3}(`+|~+)[ \t]*$")


class LiveMarkdown:
    """Markdown that arrives in pieces.

    ``settled`` only grows; ``fence`` is the block of code that is open, whose lines only grow; ``live`` is the
    rest, made anew by each update. Together they show all that came. ``parsed`` counts the characters that were
    given to the parser.
    """

    def __init__(self) -> None:
        self.settled: list[Block] = []
        self.fence: Code | None = None
        self.live: list[Block] = []
        self.parsed = 0
        self._mark = ""  # of the open fence, with the spaces before it
        self._end = ""
        self._checked = 0  # characters of the end whose complete lines are known to hold nothing to settle
        self._wait = 0  # the length from which the end is parsed again, where nothing can be settled or cut
        self._shown = 0  # characters of it that were parsed last
        self._half = False  # the last live block is a line that is not complete, as it came
        self._whole: list[Placed] | None = None  # what the end is, if it was just parsed
        self._seam = False  # the end continues a paragraph that was cut
        self._return = False  # the last character was "\r": half of a line end, perhaps
        self._references: dict[str, Any] = {}

    def update(self, text: str) -> None:
        """Takes in what came since the last update."""
        if self._return:
            text = "\r" + text
        self._return = text.endswith("\r")
        self._whole = None
        self._end += visible(text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n"))
        while self._settle():
            pass
        self.live = self._rest()

    def close(self) -> None:
        """The text has ended: nothing is held back any more."""
        if self._return:
            self._return = False
            self._end += "\n"
        self._wait = 0
        self.update("")
        if self.fence is not None:
            if self._end and not closes(self._end, self._mark):
                self.fence.lines.append(self._unindented(self._end))
            self.fence.closed = True
            self.settled.append(self.fence)
            self.fence, self._end = None, ""
        self.settled += self.live
        self.live = []

    def _settle(self) -> bool:
        """Settles what is settled by the lines that are complete; whether there may be more."""
        complete = self._end.rfind("\n") + 1
        if self.fence is not None:
            return self._read_fence(complete)
        if len(self._end) < self._wait:
            return False
        if complete <= self._checked:
            return len(self._end) >= max(LIMIT, self._wait) and self._shorten(complete)
        placed = self._parse(self._end[:complete], dict(self._references))
        self._checked = complete
        self._whole = placed if complete == len(self._end) else None
        if not placed:
            return False
        last = placed[-1]
        if last.closed:
            self._take(placed, last.end)
        elif len(placed) > 1 or last.open_fence:
            self._take(placed, last.start)
        if last.open_fence:
            self._open_fence(last.open_fence)
        return last.closed or bool(last.open_fence) or len(self._end) >= LIMIT

    def _take(self, placed: list[Placed], until: int) -> None:
        """Settles the blocks that stand before a line of the end."""
        self._add([each.block for each in placed if each.start < until])
        before = "".join(self._end.splitlines(keepends=True)[:until])
        if "]:" in before:
            self._parse(before, self._references)
        self._end = self._end[len(before) :]
        self._checked, self._wait, self._whole = max(self._checked - len(before), 0), 0, None

    def _add(self, blocks: list[Block]) -> None:
        self.settled += self._sewn(blocks)
        self._seam = self._seam and not blocks

    def _sewn(self, blocks: list[Block]) -> list[Block]:
        if self._seam and blocks and isinstance(blocks[0], Paragraph | Raw):
            first = blocks[0]
            sewn: Block = (
                Paragraph(first.text, seam=True)
                if isinstance(first, Paragraph)
                else Raw(first.text, seam=True)
            )
            return [sewn, *blocks[1:]]
        return blocks

    def _open_fence(self, mark: str) -> None:
        opening, _, self._end = self._end.partition("\n")
        self._mark = mark
        self.fence = Code(language_of(opening.strip().lstrip(mark.strip()[0])), closed=False)

    def _read_fence(self, complete: int) -> bool:
        assert self.fence is not None
        lines = self._end[:complete].split("\n")[:-1]
        for number, line in enumerate(lines):
            if closes(line, self._mark):
                self.fence.closed = True
                self.settled.append(self.fence)
                self.fence = None
                self._end = "\n".join([*lines[number + 1 :], self._end[complete:]])
                self._checked = self._wait = 0
                return True
            self.fence.lines.append(self._unindented(line))
        self._end = self._end[complete:]
        return False

    def _unindented(self, line: str) -> str:
        """A line of the fence without the columns by which its mark is indented; of a tab what is left of it."""
        indent = len(self._mark) - len(self._mark.lstrip(" "))
        start = columns = 0
        while columns < indent and line[start : start + 1] in (" ", "\t"):
            columns += 1 if line[start] == " " else 4 - columns % 4
            start += 1
        return " " * (columns - indent) + line[start:]

    def _shorten(self, complete: int) -> bool:
        """The end is too long to be parsed each time: cuts its paragraph, or waits until it has grown."""
        self._shown = complete or len(self._end)
        placed = self._parse(self._end[: self._shown], dict(self._references))
        if len(placed) == 1 and isinstance(placed[0].block, Paragraph) and (cut := _place_to_cut(self._end)):
            self._add([each.block for each in self._parse(self._end[:cut], dict(self._references))])
            self._end, self._seam = self._end[cut:].lstrip(" \n"), True
            self._checked = self._wait = 0
            return True
        self.live, self._half = self._sewn([each.block for each in placed]), False
        self._wait = len(self._end) * 5 // 4
        return False

    def _rest(self) -> list[Block]:
        if self.fence is not None:
            return []
        if self._wait:
            return self._rest_as_it_came()
        if not self._end:
            return []
        placed = self._parse(self._end, dict(self._references)) if self._whole is None else self._whole
        return self._sewn([each.block for each in placed])

    def _rest_as_it_came(self) -> list[Block]:
        """The blocks that were parsed last, which stay the same objects, and what came since, line by line."""
        if self._half:
            self.live.pop()
        complete = self._end.rfind("\n") + 1
        if complete > self._shown:
            self.live.append(Raw(self._end[self._shown : complete - 1], seam=True))
            self._shown = complete
        self._half = self._shown < len(self._end)
        if self._half:
            self.live.append(Raw(self._end[self._shown :], seam=True))
        return self.live

    @property
    def partial(self) -> str:
        """The line of the open fence that is not complete, unless it looks as if it will close it."""
        line = self._unindented(self._end) if self.fence is not None else ""
        return "" if _MAYBE_CLOSING.match(line) else line

    def _parse(self, text: str, references: dict[str, Any]) -> list[Placed]:
        self.parsed += len(text)
        return parse(text, references)


def _place_to_cut(text: str) -> int:
    """Where a long paragraph can be cut: the last place at which no mark is open, or 0."""
    last = 0
    marks: dict[str, int] = dict.fromkeys("`*_~[]", 0)
    before = 0
    for match in _PLACES.finditer(text, 0, len(text) - _KEPT):
        for mark in marks:
            marks[mark] += text.count(mark, before, match.end())
        before = match.end()
        if marks["["] == marks["]"] and not any(marks[mark] % 2 for mark in "`*~"):
            last = match.end()
    if not last and len(text) > 4 * LIMIT:  # a mark that is never closed
        last = before
    return last
