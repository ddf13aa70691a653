"""Whether a model fits, as a mark for a list and as words; told by shape first, so that it works without colour."""

from collections.abc import Mapping

from textual.content import Content

from macllm.fit import Fit, Verdict

_MARKS: Mapping[Verdict, tuple[str, str, str]] = {  # mark, words, theme variable
    "comfortable": ("●", "fits", "$text-success"),
    "tight": ("◐", "tight", "$text-warning"),
    "too big": ("○", "too big", "$text-error"),
    "unknown": ("?", "not known", "$foreground-muted"),
}
WAITING = "…"  # until the engine's process has said how much memory there is


def mark(fit: Fit | None) -> Content:
    """One cell for a list; None while it is not known yet."""
    if fit is None:
        return Content.styled(WAITING, "$foreground-muted")
    sign, _, style = _MARKS[fit.verdict]
    return Content.styled(sign, style)


def badge(fit: Fit | None) -> Content:
    """Mark and words: ``● fits``."""
    if fit is None:
        return Content.styled(WAITING, "$foreground-muted")
    sign, words, style = _MARKS[fit.verdict]
    return Content.styled(f"{sign} {words}", style)
