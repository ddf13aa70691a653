"""Code in a message: its lines, coloured when they are first seen, never before."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from textual.content import Content, Span

from macllm_tui.widgets.rows import EMPTY, MUTED, Row

if TYPE_CHECKING:
    from pygments.lexer import Lexer  # type: ignore[import-untyped]

DEAR = 4_000  # characters: more than this is coloured in a thread, because it takes over 10 ms
FILL = "on $surface"
_INSET = Content("▏", [Span(0, 1, MUTED)])  # code shows as such without colours too

# By the names of pygments, without "Token."; what is not here takes the colour of its parent.
_COLOURS: Mapping[str, str] = {
    "Comment": f"{MUTED} italic",
    "Keyword": "$text-accent",
    "Keyword.Constant": "$text-warning",
    "Operator.Word": "$text-accent",
    "Literal.String": "$text-success",
    "Literal.String.Doc": "$text-success italic",
    "Literal.Number": "$text-warning",
    "Name.Builtin": "$text-secondary",
    "Name.Class": "$text-primary bold",
    "Name.Constant": "$text-warning",
    "Name.Decorator": "$text-secondary",
    "Name.Exception": "$text-primary",
    "Name.Function": "$text-primary bold",
    "Name.Tag": "$text-primary",
    "Name.Attribute": "$text-secondary",
    "Generic.Deleted": "$text-error",
    "Generic.Inserted": "$text-success",
    "Generic.Heading": "bold",
    "Generic.Subheading": "bold",
    "Generic.Strong": "bold",
    "Generic.Emph": "italic",
}


class Code:
    """A block of code. It is open while its lines still come; then each line is coloured for itself."""

    seam = False

    def __init__(self, language: str, lines: Iterable[str] = (), *, closed: bool = True) -> None:
        self.language = language
        self.lines = list(lines)
        self.closed = closed
        self.asked = False  # a thread is colouring it
        self._coloured: list[Content] | None = None
        self._large: bool | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and (self.language, self.lines) == (other.language, other.lines)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"Code({self.language!r}, {self.lines!r})"

    @property
    def dear(self) -> bool:
        """Whether :meth:`colour` has to be called, in a thread, for its colours to come."""
        if not (self.closed and self._coloured is None and self.language):
            return False
        if self._large is None:
            self._large = sum(map(len, self.lines)) > DEAR
        return self._large

    def rows(self, width: int) -> list[Row]:
        """The language, if there is one, and the lines."""
        return [*self.head(), *(self.row(index) for index in range(len(self.lines)))]

    def head(self) -> list[Row]:
        """The line that names the language."""
        if not self.language:
            return []
        label = Content(self.language, [Span(0, len(self.language), MUTED)])
        return [Row(label, _INSET, _INSET, fill=FILL, fold=True, copied=False)]

    def row(self, index: int) -> Row:
        """One line. Its text is final, its colours are not."""
        text = Content(self.lines[index].expandtabs(4), strip_control_codes=False)
        return Row(text, _INSET, _INSET, fill=FILL, fold=True, source=self, index=index)

    def line(self, index: int) -> Content:
        """One line with its colours."""
        if not self.language:
            return self.row(index).text
        if not self.closed:
            return _coloured_line(self.language, self.lines[index])
        if self._coloured is None:
            if self.dear:
                return self.row(index).text
            self.colour()
        assert self._coloured is not None
        return self._coloured[index] if index < len(self._coloured) else EMPTY

    def colour(self) -> None:
        """Colours all lines, with what stands on the lines before each known."""
        self._coloured = _coloured(self.language, self.lines)


@lru_cache(maxsize=512)
def _coloured_line(language: str, line: str) -> Content:
    return _coloured(language, [line])[0]


@lru_cache(maxsize=32)
def _lexer(language: str) -> "Lexer | None":
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    try:
        return get_lexer_by_name(language.lower(), stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@lru_cache(maxsize=512)
def _colour_of(token: str) -> str:
    while token:
        if token in _COLOURS:
            return _COLOURS[token]
        token = token.rpartition(".")[0]
    return ""


def _coloured(language: str, lines: list[str]) -> list[Content]:
    lines = [line.expandtabs(4) for line in lines]
    lexer = _lexer(language)
    if lexer is None:
        return [Content(line, strip_control_codes=False) for line in lines]
    spans: list[list[Span]] = [[] for _ in lines]
    number = column = 0
    for kind, value in lexer.get_tokens("\n".join(lines)):
        colour = _colour_of(str(kind).partition(".")[2])
        first, *more = value.split("\n")
        for part, new in ((first, False), *((line, True) for line in more)):
            if new:
                number, column = number + 1, 0
            if colour and part and number < len(lines):
                spans[number].append(Span(column, column + len(part), colour))
            column += len(part)
    return [Content(line, marks, strip_control_codes=False) for line, marks in zip(lines, spans, strict=True)]
