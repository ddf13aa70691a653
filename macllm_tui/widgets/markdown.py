"""Markdown to blocks. What decides is markdown-it, the parser that Textual uses too."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from textual.content import Content, Span
from textual.style import Style

from macllm_tui.widgets.blocks import BULLETS, Block, Heading, Item, Paragraph, Quote, Raw, Rule, Table
from macllm_tui.widgets.code import Code
from macllm_tui.widgets.rows import MUTED

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

INLINE_CODE = "$text-warning on $surface"
_STYLES = {"em_open": "italic", "strong_open": "bold", "s_open": "strike"}
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_CLOSING_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*$")


class Placed(NamedTuple):
    """A block of the document, or one item of a list, and the lines it stands on, as a half-open range."""

    block: Block
    start: int
    end: int
    open_fence: str = ""  # of a fence that is not closed: its mark, with the spaces before it
    closed: bool = False  # no line that follows can change it


def parse(text: str, references: dict[str, Any] | None = None) -> list[Placed]:
    """The blocks of a Markdown text (safe to show, lines ended by ``\\n``).

    ``references`` are link definitions that stand before the text; those found in it are added.
    """
    environment: dict[str, Any] = {"references": {} if references is None else references}
    tokens = parser().parse(text, environment)
    lines = text.split("\n")
    placed: list[Placed] = []
    for token, inside in _groups(tokens):
        start, end = token.map or (0, 0)
        if token.type in ("bullet_list_open", "ordered_list_open"):
            for item, content in _groups(inside):
                start, end = item.map or (start, end)
                placed.append(Placed(_item(item, content, 0), start, end))
        elif (block := _block(token, inside, 0)) is not None:
            mark = _open_fence(token, lines)
            closed = token.type in ("heading_open", "hr") or (token.type == "fence" and not mark)
            placed.append(Placed(block, start, end, mark, closed))
    return placed


def blocks_of(text: str) -> list[Block]:
    """The blocks of a whole Markdown text."""
    return [placed.block for placed in parse(text)]


@cache
def parser() -> "MarkdownIt":
    """The one parser. Tags stay text: nothing that a model wrote may vanish because it looks like HTML."""
    from markdown_it import MarkdownIt

    return MarkdownIt("gfm-like", {"html": False, "maxNesting": 100})


def closes(line: str, mark: str) -> bool:
    """Whether a line ends the fence that ``mark`` opened."""
    found = _CLOSING_FENCE.match(line)
    return found is not None and found[1].startswith(mark.strip())


def language_of(info: str) -> str:
    """The language that the opening line of a fence names."""
    return info.strip().partition(" ")[0].strip("{}.")


def _open_fence(token: "Token", lines: Sequence[str]) -> str:
    if token.type != "fence" or token.map is None:
        return ""
    start, end = token.map
    first = lines[start]
    mark = first[: len(first) - len(first.lstrip(" "))] + token.markup
    last = lines[end - 1] if end - 1 < len(lines) else ""
    return "" if end - 1 > start and closes(last, mark) else mark


def _groups(tokens: Sequence["Token"]) -> Iterator[tuple["Token", Sequence["Token"]]]:
    """The outermost tokens with what is between their opening and their closing one."""
    start = depth = 0
    for index, token in enumerate(tokens):
        if depth == 0:
            start = index
        depth += token.nesting
        if depth == 0:
            yield tokens[start], tokens[start + 1 : index]


def _blocks(tokens: Sequence["Token"], depth: int) -> Iterator[Block]:
    for token, inside in _groups(tokens):
        if token.type in ("bullet_list_open", "ordered_list_open"):
            yield from (_item(item, content, depth) for item, content in _groups(inside))
        elif (block := _block(token, inside, depth)) is not None:
            yield block


def _item(token: "Token", inside: Sequence["Token"], depth: int) -> Item:
    marker = f"{token.info}{token.markup}" if token.info else BULLETS[depth % len(BULLETS)]
    return Item(marker, tuple(_blocks(inside, depth + 1)))


def _block(token: "Token", inside: Sequence["Token"], depth: int) -> Block | None:
    match token.type:
        case "paragraph_open":
            return Paragraph(_inline(inside[0]))
        case "heading_open":
            return Heading(int(token.tag[1]), _inline(inside[0]))
        case "fence" | "code_block":
            lines = token.content.removesuffix("\n").split("\n") if token.content else []
            return Code(language_of(token.info), lines)
        case "hr":
            return Rule()
        case "blockquote_open":
            return Quote(tuple(_blocks(inside, depth)))
        case "table_open":
            return _table(inside)
    return Raw(token.content) if token.content else None


def _table(tokens: Sequence["Token"]) -> Table:
    rows: list[tuple[Content, ...]] = []
    aligned: list[str] = []
    for _, part in _groups(tokens):
        for _, row in _groups(part):
            cells = list(_groups(row))
            if not rows:
                aligned = [str(cell.attrs.get("style", "")).partition(":")[2] or "left" for cell, _ in cells]
            rows.append(tuple(_inline(inside[0]) if inside else Content() for _, inside in cells))
    return Table(rows[0], tuple(rows[1:]), tuple(aligned))


def _inline(token: "Token") -> Content:
    """Text with its styles. Links show where they lead, since not every terminal can follow them."""
    parts: list[str] = []
    spans: list[Span] = []
    opened: list[tuple[int, str]] = []
    length = 0

    def add(text: str, style: str | Style = "") -> None:
        nonlocal length
        parts.append(text)
        if style:
            spans.append(Span(length, length + len(text), style))
        length += len(text)

    for child in token.children or ():
        match child.type:
            case "text":
                add(_BREAK.sub("\n", child.content))
            case "softbreak" | "hardbreak":
                add("\n")
            case "code_inline":
                add(child.content, INLINE_CODE)
            case "image":
                target = str(child.attrs.get("src", ""))
                add(f"[image: {child.content}]", "italic")
                add(f" ({target})", MUTED)
            case "em_open" | "strong_open" | "s_open":
                opened.append((length, _STYLES[child.type]))
            case "em_close" | "strong_close" | "s_close":
                start, style = opened.pop()
                spans.append(Span(start, length, style))
            case "link_open":
                opened.append((length, str(child.attrs.get("href", ""))))
            case "link_close":
                start, target = opened.pop()
                spans.append(Span(start, length, "$text-accent underline"))
                spans.append(Span(start, length, Style(link=target)))
                if target.removeprefix("mailto:") != (shown := "".join(parts)[start:]) and (
                    target.removeprefix("http://") != shown
                ):
                    add(f" ({target})", MUTED)
            case _:
                add(child.content)
    return Content("".join(parts), spans, strip_control_codes=False)
