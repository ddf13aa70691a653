"""What every reward is: what it needs of a row, and the number it gives a completion."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

RawRow: TypeAlias = Mapping[str, Any]  # a row as it stands in the file
_THOUGHT_ENDS = "</think>"


class Reward(ABC):
    """A number for a completion; the larger, the better."""

    apart: ClassVar[bool] = (
        False  # whether it waits for other processes, so that several may be asked at once
    )

    @abstractmethod
    def missing(self, row: RawRow) -> str | None:
        """Why the row cannot be judged by, in one sentence; None: it can."""

    @abstractmethod
    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        """What ``completion`` is worth, as text without the token that ended it."""


def said(completion: str) -> str:
    """What is said after all thoughts, without white space around it."""
    return completion.rpartition(_THOUGHT_ENDS)[2].strip()
