"""How a part of a whole is drawn in characters: a bar, large digits, and counts in few columns."""

from rich.cells import cell_len, set_cell_size
from textual.renderables.digits import DIGITS, DIGITS3X3_BOLD

from macllm_tui.widgets.visible import visible

_LINES_A_DIGIT = 3


def bar(part: float, whole: float, width: int, peak: float = 0.0) -> str:
    """``███▒░░``: full up to ``part``, half up to ``peak``. Never empty for something, never full for less than all."""
    filled, marked = (_columns(value, whole, width) for value in (part, peak))
    return "█" * filled + "▒" * max(marked - filled, 0) + "░" * (width - max(filled, marked))


def _columns(part: float, whole: float, width: int) -> int:
    if whole <= 0 or part <= 0 or width <= 0:
        return 0
    if part >= whole:
        return width
    return min(max(round(part / whole * width), 1), max(width - 1, 1))


def percent(part: float, whole: float) -> int:
    """Whole percents; 100 only where it is all there."""
    if whole <= 0:
        return 0
    return 100 if part >= whole else min(int(100 * part / whole), 99)


def large(number: str) -> list[str]:
    """A number of digits and points as three lines."""
    lines = ["", "", ""]
    for character in number:
        if character in DIGITS:
            first = DIGITS.index(character) * _LINES_A_DIGIT
            glyph = [line.ljust(3) for line in DIGITS3X3_BOLD[first : first + _LINES_A_DIGIT]]
        else:
            glyph = [" ", " ", character]
        lines = [line + part for line, part in zip(lines, glyph, strict=True)]
    return lines


def tokens(count: int) -> str:
    """Tokens as contexts are named: ``812``, ``3.1k``, ``32k``, ``1M``."""
    value, unit = float(count), ""
    for larger in ("k", "M"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    if not unit or value >= 9.95 or value == int(value):
        return f"{value:.0f}{unit}"
    return f"{value:.1f}{unit}"


def cut(name: str, width: int) -> str:
    """A name in at most ``width`` columns, with … where it is longer."""
    name = visible(name).replace("\n", " ")
    if cell_len(name) <= width:
        return name
    return set_cell_size(name, width - 1).rstrip() + "…" if width > 0 else ""
