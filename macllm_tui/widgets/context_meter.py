"""How full the model's context is: a bar, the figures, and a word from where it matters."""

from typing import NamedTuple

from macllm_tui.widgets.gauges import bar, tokens

FILLING, ALMOST_FULL = 0.80, 0.95
BAR = 8


class ContextMeter(NamedTuple):
    """The meter as text at its lengths, the longest first, and the colour it has."""

    texts: tuple[str, ...]
    style: str


def context_meter(used: int, most: int) -> ContextMeter:
    """``ctx ██░░░░░░ 3.1k/32k``; from 80 % with ``▲ filling up``, from 95 % with ``■ almost full``.

    The sign and the word say what the colour does. Without a model there is nothing to show.
    """
    if most <= 0:
        return ContextMeter(("",), "$foreground-muted")
    counts = f"{tokens(used)}/{tokens(most)}"
    share = used / most
    sign, word, style = "", "", "$foreground-muted"
    if share >= 1:
        sign, word, style = "■", "full", "$error"
    elif share >= ALMOST_FULL:
        sign, word, style = "■", "almost full", "$error"
    elif share >= FILLING:
        sign, word, style = "▲", "filling up", "$warning"
    short = f"{sign} {counts}".strip()
    return ContextMeter(
        (
            f"{sign} {word}  ctx {bar(used, most, BAR)} {counts}".strip(),
            f"{sign} {word}  ctx {counts}".strip(),
            f"{sign} ctx {counts}".strip(),
            short,
        ),
        style,
    )
