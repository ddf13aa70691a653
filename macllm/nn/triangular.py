"""Inverses of triangular matrices, of many at once, as products."""

from functools import cache

import mlx.core as mx

DIRECT = 16  # rows of a system that is solved without halving it


def unit_lower_inverse(lower: mx.array) -> mx.array:
    """The inverse (..., S, S) of the identity plus what ``lower`` holds below its diagonal; S a power of two, or small.

    By halves, down to a few rows, and from there by doubling blocks whose inverse is known: as stable as
    substitution, where a series of powers would drown in its largest terms.
    """
    size = lower.shape[-1]
    if size <= DIRECT:
        return _small_inverse(lower)
    half = size // 2
    first, last = slice(0, half), slice(half, size)
    diagonal = mx.stack([lower[..., first, first], lower[..., last, last]], axis=0)
    upper, under = unit_lower_inverse(diagonal)
    corner = -(under @ lower[..., last, first] @ upper)
    rows = [mx.concatenate([upper, mx.zeros_like(upper)], axis=-1), mx.concatenate([corner, under], axis=-1)]
    return mx.concatenate(rows, axis=-2)


def solvable_size(length: int, longest: int) -> int:
    """Tokens of a chunk: ``longest``, or for fewer tokens what they need, in a size that can be halved."""
    if length >= longest or length <= DIRECT:
        return min(length, longest)
    return min(1 << (length - 1).bit_length(), longest)


def _small_inverse(lower: mx.array) -> mx.array:
    inverse = mx.eye(lower.shape[-1])
    for corners in _corners(lower.shape[-1]):
        inverse = inverse - inverse @ (lower * corners) @ inverse
    return inverse


@cache
def _corners(size: int) -> list[mx.array]:
    """For blocks of 1, 2, 4, ...: ones (S, S) at the entries below the diagonal between two neighbours that merge."""
    found, block = [], 1
    while block < size:
        place = mx.arange(size) // block
        row, column = place[:, None], place[None]
        found.append(((row == column + 1) & (row % 2 == 1)).astype(mx.float32))
        block *= 2
    return found
