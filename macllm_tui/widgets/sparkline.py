"""A row of bars for the last values: as many as there are columns, from zero to the highest of them."""

import math
from collections.abc import Sequence

_BARS = " ▁▂▃▄▅▆▇█"
_LEVELS = len(_BARS) - 1


def sparkline(values: Sequence[float], width: int, height: int = 1) -> list[str]:
    """``height`` lines of ``width`` columns, the newest value at the right. Without values they are blank.

    The scale begins at zero, so that a step of half the speed is half as high. What is not a finite number
    or not above zero has no bar; all others have at least the lowest one.
    """
    shown = list(values)[-width:] if width > 0 else []
    top = max((value for value in shown if math.isfinite(value)), default=0.0)
    heights = [_height(value, top, height * _LEVELS) for value in shown]
    lines = []
    for row in reversed(range(height)):
        bars = (_BARS[min(max(level - row * _LEVELS, 0), _LEVELS)] for level in heights)
        lines.append("".join(bars).rjust(max(width, 0)))
    return lines


def _height(value: float, top: float, levels: int) -> int:
    if not math.isfinite(value) or value <= 0 or top <= 0:
        return 0
    return max(1, round(value / top * levels))
