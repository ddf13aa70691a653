"""Numeric: the last number that is said is the row's, within a tolerance."""

import math
import re

from macllm.tune.rewards.reward import RawRow, Reward, said

# digits in groups of three or without, a fraction, an exponent; no part of a word or of a longer number
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?<=\d)\.\d+|(?<!\d)\.\d+)?(?:(?<=\d)[eE][-+]?\d+)?(?![\w])"
)
_RELATIVE = 1e-6  # without a tolerance in the row: what printing with seven digits loses


class Numeric(Reward):
    """1 where the last number of what is said is the last of ``answer``; ``tolerance``: how far it may be off."""

    def missing(self, row: RawRow) -> str | None:
        if _wanted(row) is None:
            return "'answer' holds no number, which the reward numeric compares with"
        tolerance = row.get("tolerance", 0)
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance >= 0:
            return f"'tolerance' is {tolerance!r}, not a number of at least 0"
        return None

    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        found, wanted = last_number(said(completion)), _wanted(row)
        if found is None or wanted is None:
            return 0.0
        if (tolerance := row.get("tolerance")) is not None:
            return float(abs(found - wanted) <= tolerance)
        return float(math.isclose(found, wanted, rel_tol=_RELATIVE))


def last_number(text: str) -> float | None:
    """The last number of a text: ``1,234.5``, ``-3``, ``2e-3``; None where there is none."""
    found = [match.group() for match in _NUMBER.finditer(text) if any(map(str.isdigit, match.group()))]
    if not found:
        return None
    number = float(found[-1].replace(",", "").replace("\u2212", "-"))
    return number if math.isfinite(number) else None


def _wanted(row: RawRow) -> float | None:
    answer = row.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return float(answer) if math.isfinite(answer) else None
    return last_number(answer) if isinstance(answer, str) else None
