"""The rows of a message around its text: who, what became of it, what was thought, the figures."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from textual.content import Content, Span

from macllm.chats.records import StoredMessage
from macllm.engine.figures import figures
from macllm_tui.widgets.blocks import Block, Raw, rows_of
from macllm_tui.widgets.code import Code
from macllm_tui.widgets.fences import File, with_files
from macllm_tui.widgets.rows import EMPTY, MUTED, Row, behind, breaks
from macllm_tui.widgets.visible import visible, with_newlines

TYPED = 60  # lines of what a person typed that show at once
TYPED_CHARACTERS = 8_000
SEEN = 3  # lines of a thought that show while it comes
_INSET = Content("  ")
_NAMES = {"user": "you", "system": "system", "tool": "tool"}


@dataclass(frozen=True)
class Entry:
    """A message as the transcript shows it: the ``position``-th of the ``siblings`` that answer the same."""

    message: StoredMessage
    position: int = 1
    siblings: int = 1


def name_of(message: StoredMessage) -> str:
    """Who said it: "you", or the model by the last part of its name."""
    name = _NAMES.get(message.role) or message.model.rstrip("/").rpartition("/")[2] or "assistant"
    return visible(with_newlines(name)).replace("\n", " ")


def head_rows(entry: Entry, streaming: bool) -> list[Row]:
    """Who said it, which of how many, and whether it is whole."""
    message = entry.message
    name = name_of(message)
    colour = "$text-primary" if message.role == "user" else "$text-secondary"
    text = Content(name, [Span(0, len(name), f"bold {colour}")])
    state, style = ("", "") if streaming else _state(message)
    if state:
        text = text + Content(f" · {state}", [Span(0, len(state) + 3, style)])
    right = f"  ‹{entry.position}/{entry.siblings}›" if entry.siblings > 1 else ""
    return [Row(text, right=right)]


def _state(message: StoredMessage) -> tuple[str, str]:
    said = visible(" ".join(message.error.split()))
    match message.state:
        case "stopped":
            return "stopped", "$text-warning"
        case "length":
            return "cut at the limit", "$text-warning"
        case "failed":
            return f"failed: {said}" if said else "failed", "$text-error"
        case "partial":
            return "engine stopped: reply incomplete", "$text-error"
    return "", ""


def thinking_rows(thought: str, width: int) -> list[Row]:
    """A thought under way: its last lines. Only its end is looked at, however long it is."""
    room = max(width - 2, 4)
    rows: list[Row] = []
    for line in reversed(thought[-(SEEN + 1) * room :].rstrip().split("\n")):
        for start, end in reversed(list(breaks(line, room))):
            if len(rows) < SEEN and (line or rows):
                rows.insert(0, _thought_row(line[start:end]))
    return [_fold_row("▾ thinking…", ""), *rows]


def thought_rows(message: StoredMessage, thought: str, *, folded: bool) -> list[Row]:
    """A thought that is over: one line, or unfolded all of it."""
    if not thought.strip():
        return []
    took = f" {message.thought_s:.1f} s" if message.thought_s else ""
    title = _fold_row(f"{'▸' if folded else '▾'} thought{took}", "thought")
    if folded:
        return [title]
    lines = thought.strip("\n").expandtabs(4).split("\n")
    return [title, *(_thought_row(line) for line in lines), Row()]


def typed_rows(text: str, width: int, *, folded: bool, turned: Collection[int]) -> list[Row]:
    """What a person typed, as typed. Files and the end of a very long text are one line each while ``folded``.

    ``turned`` are the numbers of those that are the other way round.
    """
    rows: list[Row] = []
    for number, part in enumerate(with_files(text)):
        fold = folded != (number in turned)
        if isinstance(part, File):
            rows += _file_rows(part, number, width, folded=fold)
        else:
            rows += _typed_rows(part, number, width, folded=fold)
    return rows


def _typed_rows(text: str, number: int, width: int, *, folded: bool) -> list[Row]:
    lines = text.split("\n", TYPED)
    if len(lines) <= TYPED and len(text) <= TYPED_CHARACTERS:
        return Raw(text).rows(width)
    start = "\n".join(lines[:TYPED])[:TYPED_CHARACTERS]
    rest = text[len(start) :].removeprefix("\n")
    title = _fold_row(f"{'▸' if folded else '▾'} {len(rest):,} more characters", f"file {number}")
    return [*Raw(start).rows(width), title, *([] if folded else Raw(rest).rows(width))]


def body_rows(blocks: Sequence[Block], width: int) -> list[Row]:
    """The text of a reply that is whole."""
    return rows_of(blocks, width)


def foot_rows(message: StoredMessage) -> list[Row]:
    """What was measured of a reply."""
    if message.metrics is None or message.role != "assistant":
        return []
    line = figures(message.metrics)
    return [Row(Content(line, [Span(0, len(line), MUTED)]), copied=False)] if line else []


def _file_rows(file: File, number: int, width: int, *, folded: bool) -> list[Row]:
    title = _fold_row(f"{'▸' if folded else '▾'} {file.title}", f"file {number}")
    if folded:
        return [title]
    return [title, *behind(Code("", file.text.rstrip("\n").split("\n")).rows(width - 2), _INSET, _INSET)]


def _fold_row(title: str, action: str) -> Row:
    return Row(Content(title, [Span(0, len(title), MUTED)]), action=action)


def _thought_row(line: str) -> Row:
    text = Content(line, [Span(0, len(line), MUTED)], strip_control_codes=False)
    return Row(text if line else EMPTY, _INSET, _INSET)
