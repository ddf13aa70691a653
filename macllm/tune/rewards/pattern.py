"""Regex: a pattern of the row is found in the completion, thoughts included.

By the package ``regex``, for one reason: it can stop. A pattern that backtracks without end is worth nothing after
a second, where Python's own would hold the run.
"""

from functools import lru_cache
from typing import Any

import regex

from macllm.tune.rewards.reward import RawRow, Reward

_SECONDS = 1.0


class Pattern(Reward):
    """1 where ``pattern`` is found. A group named ``answer`` must, where found last, be the row's."""

    def missing(self, row: RawRow) -> str | None:
        pattern = row.get("pattern")
        if not isinstance(pattern, str):
            return "'pattern' is no text, which the reward regex looks for"
        try:
            compiled = _compiled(pattern)
        except regex.error as error:
            return f"'pattern' is no regular expression ({error})"
        if "answer" in compiled.groupindex and not isinstance(row.get("answer"), str | int | float):
            return "'pattern' has a group named answer, but 'answer' is no text or number"
        return None

    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        compiled = _compiled(row["pattern"])
        try:
            if "answer" not in compiled.groupindex:
                return float(compiled.search(completion, timeout=_SECONDS) is not None)
            found = [match["answer"] for match in compiled.finditer(completion, timeout=_SECONDS)]
        except TimeoutError:
            return 0.0
        return float(bool(found) and (found[-1] or "").strip() == str(row["answer"]).strip())


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern, regex.DOTALL)
