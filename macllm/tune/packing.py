"""Packs sequences of different lengths into rows of one: first-fit decreasing (Johnson, 1973)."""

from collections.abc import Sequence


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``lengths`` by row; the lengths of a row sum up to ``capacity`` at most.

    The longest first, each into the first row that has room for it; equal lengths in their order. The rows' room
    is kept in a tree of maxima, so that n lengths take n log n steps. Raises ValueError for a length beyond
    ``capacity``.
    """
    if max(lengths, default=0) > capacity:
        raise ValueError(f"a length of {max(lengths)} does not fit into {capacity}")
    leaves = 1
    while leaves < len(lengths):
        leaves *= 2
    room = [capacity] * (
        2 * leaves
    )  # room[i] is the larger of room[2 i] and room[2 i + 1]; rows are the leaves
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        node = 1
        while node < leaves:
            node = 2 * node + (room[2 * node] < lengths[index])
        row = node - leaves
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        room[node] -= lengths[index]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows


def fill(lengths: Sequence[int], rows: Sequence[Sequence[int]], capacity: int) -> float:
    """Share of the rows' places that hold a token."""
    return sum(lengths[index] for row in rows for index in row) / (len(rows) * capacity) if rows else 0.0


def shape(
    rows: int, max_seq_length: int, lengths: Sequence[int], looked_at: Sequence[int] = ()
) -> tuple[int, int]:
    """Packed rows of a batch, and their length: together about as many of ``lengths`` as ``rows`` plain rows are.

    The longest, also of those that are ``looked_at`` to validate, has room.
    """
    tokens = rows * sum(lengths) / len(lengths)
    length = min(max_seq_length, max(*lengths, *looked_at, round(tokens)))
    return max(1, round(tokens / length)), length
