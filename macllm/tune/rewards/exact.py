"""Exact match: what is said is the row's answer, or one of its answers."""

from macllm.tune.rewards.reward import RawRow, Reward, said


class ExactMatch(Reward):
    """1 where what is said is ``answer`` (one text, or a list of those that count), white space around it aside."""

    def missing(self, row: RawRow) -> str | None:
        if _answers(row) is None:
            return "'answer' is no text, number or list of them, which the reward exact_match compares with"
        return None

    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        return float(said(completion) in (_answers(row) or ()))


def _answers(row: RawRow) -> list[str] | None:
    given = row.get("answer")
    answers = given if isinstance(given, list) else [given]
    if not answers or not all(isinstance(each, str | int | float) for each in answers):
        return None
    return [str(each).strip() for each in answers]
