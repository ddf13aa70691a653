"""Sets rows aside to validate with, by seed, and never a row that is also learned."""

from collections.abc import Hashable, Sequence

import numpy as np

from macllm.errors import InputError

SHARE = 0.05
MOST = 500  # rows; more make the figure hardly better, and every look at it slower
_STREAM = 0x5011  # of the seed: what is set aside must not follow from the order of the first pass


def validation_rows(contents: Sequence[Hashable], seed: int) -> list[int]:
    """Indices to validate with, in ascending order: about 5 % of the rows, one at least.

    ``contents`` tell which rows are the same: those stay on one side. Raises InputError where nothing would be
    left to learn, or nothing to validate with.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, content in enumerate(contents):
        groups.setdefault(content, []).append(index)
    if len(groups) < 2:
        raise InputError(
            f"{len(contents)} row{'s' * (len(contents) != 1)} without two different ones cannot be learned and"
            " validated with; add rows, or a valid.jsonl"
        )
    wanted = min(MOST, max(1, round(SHARE * len(contents))))
    members = list(groups.values())
    taken: list[int] = []
    for group in permutation(np.random.PCG64([seed, _STREAM]), len(members)):
        if len(taken) + len(members[group]) <= wanted:
            taken += members[group]
    smallest = min(members, key=len)
    return sorted(taken or smallest)


def permutation(chance: np.random.PCG64, count: int) -> list[int]:
    """A random order of ``count``, the same with every version of NumPy (its Generator does not promise that)."""
    order: list[int] = np.argsort(chance.random_raw(count), kind="stable").tolist()
    return order
