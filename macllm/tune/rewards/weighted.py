"""The rewards that the setting ``reward`` names, as one: a sum with weights."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from macllm.errors import OptionError
from macllm.tune.rewards.code import CodeTests
from macllm.tune.rewards.exact import ExactMatch
from macllm.tune.rewards.function import PythonFunction
from macllm.tune.rewards.json_schema import JsonSchema
from macllm.tune.rewards.numeric import Numeric
from macllm.tune.rewards.pattern import Pattern
from macllm.tune.rewards.reward import RawRow, Reward

BUILT_IN: Mapping[str, Callable[[], Reward]] = {
    "exact_match": ExactMatch,
    "regex": Pattern,
    "json_schema": JsonSchema,
    "numeric": Numeric,
    "code": CodeTests,
}
_EXPECTED = (
    f"expected {', '.join(BUILT_IN)} or file.py:function, several with commas, each perhaps with *weight"
)


@dataclass(frozen=True)
class Judged:
    """A completion to be judged: its prompt, its text and the row it answers."""

    prompt: str
    completion: str
    row: RawRow


class WeightedRewards:
    """Several rewards by the names they were given, each with its weight."""

    def __init__(self, rewards: Mapping[str, tuple[Reward, float]]) -> None:
        self._rewards = rewards

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rewards)

    def missing(self, row: RawRow) -> str | None:
        """Why a row cannot be judged by all of them; None: it can."""
        reasons = (reward.missing(row) for reward, _ in self._rewards.values())
        return next((reason for reason in reasons if reason is not None), None)

    def each(self, judged: Sequence[Judged]) -> dict[str, list[float]]:
        """What every reward gives to every completion, before weights."""
        return {name: _ask(reward, judged) for name, (reward, _) in self._rewards.items()}

    def total(self, each: Mapping[str, Sequence[float]]) -> list[float]:
        """The weighted sum for every completion, of what :meth:`each` gave."""
        weights = [weight for _, weight in self._rewards.values()]
        return [
            sum(weight * value for weight, value in zip(weights, values, strict=True))
            for values in zip(*each.values(), strict=True)
        ]


def rewards_of(text: str) -> WeightedRewards:
    """The rewards that a setting names: ``numeric``, or ``numeric, regex*0.2, my.py:polite*-1``.

    Raises OptionError for what is no reward, a weight that is no number, and no reward at all.
    """
    found: dict[str, tuple[Reward, float]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, star, factor = (piece.strip() for piece in part.rpartition("*"))
        if not star:
            name, factor = part, "1"
        try:
            weight = float(factor)
        except ValueError:
            raise OptionError(f"reward={part!r}: {factor!r} is no weight; write a number behind *") from None
        if name in found:
            raise OptionError(f"reward={text!r} names {name} twice; name it once")
        found[name] = (_reward(name), weight)
    if not found:
        raise OptionError(f"reward is not set ({_EXPECTED})")
    return WeightedRewards(found)


def _reward(name: str) -> Reward:
    if name in BUILT_IN:
        return BUILT_IN[name]()
    path, colon, function = name.rpartition(":")
    if colon and path.endswith(".py") and function.isidentifier():
        return PythonFunction(Path(path).expanduser(), function)
    raise OptionError(f"reward={name!r} is not known ({_EXPECTED})")


def _ask(reward: Reward, judged: Sequence[Judged]) -> list[float]:
    def one(each: Judged) -> float:
        return reward(each.prompt, each.completion, each.row)

    if not reward.apart:
        return [one(each) for each in judged]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(one, judged))
